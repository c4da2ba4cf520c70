"""Mixtures of experts: attention only, without experts and routers."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="mixtures",
        summary="attention projections of mixtures of experts",
        model_types=("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "granitemoeshared", "gpt_oss"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
)
