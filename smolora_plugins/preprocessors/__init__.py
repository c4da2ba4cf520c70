"""Preprocessors that come with SmoLoRA."""

from collections.abc import Iterable

from smolora_core import Preprocessor, hookimpl


@hookimpl
def smolora_preprocessors() -> Iterable[Preprocessor]:
    """Offer the built-in steps."""
    yield Preprocessor(
        name="strip",
        summary="remove white space around every text of a row",
        implementation="smolora_plugins.preprocessors.strip:strip",
    )
