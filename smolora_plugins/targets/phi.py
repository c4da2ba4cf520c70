"""Phi: separate projections in versions 1 and 2, a fused one from version 3."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="phi",
        summary="attention projections of Phi 1 and 2",
        model_types=("phi",),
        modules=("q_proj", "k_proj", "v_proj", "self_attn.dense"),
    ),
    Targets(
        name="phi3",
        summary="attention of Phi 3 and 4: fused query, key and value, and the output projection",
        model_types=("phi3",),
        modules=("qkv_proj", "o_proj"),
    ),
)
