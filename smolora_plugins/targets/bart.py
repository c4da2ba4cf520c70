"""BART and similar models: self-attention of encoder and decoder, and cross-attention."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="bart",
        summary="attention of BART, Pegasus, Marian, M2M-100 and similar models",
        model_types=(
            *("bart", "mbart", "pegasus", "pegasus_x", "plbart", "marian", "m2m_100", "blenderbot", "blenderbot-small"),
        ),
        modules=("q_proj", "k_proj", "v_proj", "self_attn.out_proj", "encoder_attn.out_proj"),
    ),
    Targets(
        name="prophetnet",
        summary="attention of ProphetNet",
        model_types=("prophetnet",),
        modules=("query_proj", "key_proj", "value_proj", "self_attn.out_proj", "cross_attn.out_proj"),
    ),
)
