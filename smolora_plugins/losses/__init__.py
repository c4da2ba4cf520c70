"""Losses that come with SmoLoRA."""

from collections.abc import Iterable

from smolora_core import Loss, hookimpl


@hookimpl
def smolora_losses() -> Iterable[Loss]:
    """Offer the built-in losses."""
    yield Loss(
        name="cross-entropy",
        summary="negative log-likelihood of the next token",
        implementation="smolora_plugins.losses.cross_entropy:cross_entropy",
    )
