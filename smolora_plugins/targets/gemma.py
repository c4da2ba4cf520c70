"""Gemma, including the text part of its vision models, and T5Gemma, which also has an encoder."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="gemma",
        summary="attention projections of Gemma's text model",
        model_types=("gemma", "gemma2", "gemma3", "gemma3_text", "vaultgemma", "gemma4_text", "t5gemma"),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
)
