"""Models that mix attention with convolutions, state spaces, recurrence or linear attention."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="lfm2",
        summary="attention projections of LFM2, without its convolutions",
        model_types=("lfm2",),
        modules=("q_proj", "k_proj", "v_proj", "self_attn.out_proj"),
    ),
    Targets(
        name="hybrids",
        summary="attention projections of models with state spaces or recurrence, without those layers",
        model_types=("falcon_h1", "granitemoehybrid", "recurrent_gemma"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    Targets(
        name="qwen3-5",
        summary="projections of full and linear attention in Qwen 3.5",
        model_types=("qwen3_5", "qwen3_5_text"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "linear_attn.out_proj"),
    ),
)
