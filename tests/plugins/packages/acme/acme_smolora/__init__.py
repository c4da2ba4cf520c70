"""A loss with an option and a preprocessor, offered without importing torch."""

import attrs

from smolora_core import Loss, Preprocessor, hookimpl


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


@hookimpl
def smolora_preprocessors():
    yield Preprocessor(name="no-shouting", summary="leave shouted rows out", implementation="acme_smolora.rows:no_shouting")
