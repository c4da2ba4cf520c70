"""Options with one value per output or class."""

from collections.abc import Sequence

from torch import Tensor

from smolora_core import ConfigError


def per_class(name: str, values: Sequence[float], predictions: Tensor, noun: str) -> Tensor:
    """Turn the values of option `name` into a tensor `[C]` like `predictions`, which are `[n, C]`, or `[n]` for one output.

    Raises:
        ConfigError: the number of values is not the model's number of outputs.
    """
    width = predictions.shape[-1] if predictions.dim() > 1 else 1
    if len(values) != width:
        raise ConfigError(f"loss.{name} needs one value per {noun} ({width}), has {len(values)}")
    return predictions.new_tensor(values)
