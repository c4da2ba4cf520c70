"""A loss with an option, offered without importing torch."""

import attrs

from smolora_core import Loss, hookimpl


@attrs.frozen
class Smoothing:
    """Options of `smooth`."""

    amount: float = attrs.field(default=0.1, validator=attrs.validators.ge(0))


@hookimpl
def smolora_losses():
    yield Loss(
        name="smooth",
        summary="cross-entropy with smoothed labels",
        implementation="acme_smolora.losses:smooth",
        options=Smoothing,
    )
