"""Stop a run whose numbers have gone wrong, before they reach the adapter."""

import math

from smolora_core.errors import TrainingError

__all__ = ["require_finite"]


def require_finite(value: float, what: str, step: int) -> None:
    """Refuse NaN and infinity.

    Raises:
        TrainingError: before the optimizer step is taken, so that the adapter stays as it was.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"{what} is {value} at step {step}",
            hint="lower training.learning_rate, or set model.dtype to float32; this step updated nothing",
        )
