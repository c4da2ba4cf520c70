"""GPT-2 and similar models, whose linear layers are Conv1D."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="gpt2",
        summary="attention of GPT-2: fused query, key and value, and the output projection (Conv1D)",
        model_types=("gpt2", "gpt_bigcode", "openai-gpt"),
        modules=("attn.c_attn", "attn.c_proj"),
    ),
)
