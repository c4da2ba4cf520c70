"""Gemma, with the text part of its models that see, and T5Gemma, which has an encoder too."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="gemma",
        summary="attention projections of Gemma's text model",
        model_types=("gemma", "gemma2", "gemma3", "gemma3_text", "vaultgemma", "gemma4_text", "t5gemma"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
)
