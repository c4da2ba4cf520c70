"""Models with a fused `query_key_value` and a `dense` output projection: GPT-NeoX (Pythia), BLOOM, Falcon, Persimmon."""

from smolora_core import Targets

RECORDS = tuple(
    Targets(
        name=name,
        summary=f"attention of {title}: fused query, key and value, and the output projection",
        model_types=model_types,
        modules=("query_key_value", f"{attention}.dense"),
    )
    for name, title, model_types, attention in (
        ("gpt-neox", "GPT-NeoX", ("gpt_neox", "gpt_neox_japanese"), "attention"),
        ("bloom", "BLOOM and Falcon", ("bloom", "falcon"), "self_attention"),
        ("persimmon", "Persimmon", ("persimmon",), "self_attn"),
    )
)
