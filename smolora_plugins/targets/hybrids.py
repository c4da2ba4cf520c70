"""Models that mix attention with convolutions, state spaces or linear attention."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="lfm2",
        summary="attention projections of LFM2; its convolutions are left alone",
        model_types=("lfm2",),
        modules=("q_proj", "k_proj", "v_proj", "self_attn.out_proj"),
    ),
    Targets(
        name="hybrids",
        summary="attention projections of models with state spaces or recurrence, which are left alone",
        model_types=("falcon_h1", "granitemoehybrid", "recurrent_gemma"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
    Targets(
        name="qwen3-5",
        summary="projections of Qwen 3.5's attention, full and linear",
        model_types=("qwen3_5", "qwen3_5_text"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "linear_attn.out_proj"),
    ),
)
