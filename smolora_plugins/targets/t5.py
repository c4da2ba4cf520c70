"""T5 and its kin: attention of encoder and decoder, and from one to the other."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="t5",
        summary="attention of T5 and its kin",
        model_types=("t5", "mt5", "umt5", "longt5", "switch_transformers", "udop"),
        modules=("q", "k", "v", "o"),
    ),
)
