"""Which modules LoRA adapts, by architecture."""

from collections.abc import Iterable

from smolora_core import Targets, hookimpl


@hookimpl
def smolora_targets() -> Iterable[Targets]:
    """Offer the families whose module names are known."""
    yield Targets(
        name="llama",
        summary="attention projections of Llama and its kin",
        model_types=("llama", "mistral", "qwen2", "qwen3", "smollm3"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    )
    yield Targets(
        name="gpt2",
        summary="attention of GPT-2: fused query, key and value, and the output projection (Conv1D)",
        model_types=("gpt2",),
        modules=("attn.c_attn", "attn.c_proj"),
    )
