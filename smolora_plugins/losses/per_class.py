"""Options that hold one value for each output or class."""

from collections.abc import Sequence

from torch import Tensor

from smolora_core import ConfigError


def per_class(name: str, values: Sequence[float], predictions: Tensor, noun: str) -> Tensor:
    """Put an option beside the predictions it belongs to.

    Args:
        name: of the option.
        values: of the option.
        predictions: `[n, C]`, or `[n]` where there is one output.
        noun: what one of the `C` is.

    Returns:
        `[C]`, of the predictions' type and device.

    Raises:
        ConfigError: there are more or fewer values than the model has outputs.
    """
    width = predictions.shape[-1] if predictions.dim() > 1 else 1
    if len(values) != width:
        raise ConfigError(f"loss.{name} must hold one value per {noun} ({width}), holds {len(values)}")
    return predictions.new_tensor(values)
