"""T5 and similar models: self-attention of encoder and decoder, and cross-attention."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="t5",
        summary="attention of T5 and similar models",
        model_types=("t5", "mt5", "umt5", "longt5", "switch_transformers", "udop"),
        modules=("q", "k", "v", "o"),
    ),
)
