"""Options of the built-in losses, checked when the config is."""

import math
from typing import Any

import attrs

from smolora_core import ConfigError


def _above_0(options: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if not 0 < value < math.inf:
        raise ConfigError(f"{attribute.name} must be above 0, is {value!r}")


def _not_below_0(options: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(f"{attribute.name} must be at least 0, is {value!r}")


def _below_1(options: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{attribute.name} must be at least 0 and below 1, is {value!r}")


def _all_above_0(options: object, attribute: "attrs.Attribute[Any]", values: tuple[float, ...] | None) -> None:
    if values is not None and not values:
        raise ConfigError(f"{attribute.name} is an empty list")
    for value in values or ():
        if not 0 < value < math.inf:
            raise ConfigError(f"{attribute.name} must all be above 0, one is {value!r}")


@attrs.frozen(kw_only=True)
class LabelSmoothing:
    """Options of `label-smoothing`."""

    smoothing: float = attrs.field(default=0.1, validator=_below_1)
    """Share of a target's probability that is spread over all classes alike."""


@attrs.frozen(kw_only=True)
class Focal:
    """Options of `focal`."""

    gamma: float = attrs.field(default=2.0, validator=_not_below_0)
    """How much less a target counts that is predicted well; 0 is cross-entropy."""
    alpha: tuple[float, ...] | None = attrs.field(default=None, validator=_all_above_0)
    """Weight of each class; left out, all count alike."""


@attrs.frozen(kw_only=True)
class ZLoss:
    """Options of `z-loss`."""

    weight: float = attrs.field(default=1e-4, validator=_above_0)
    """Weight of the squared log-normaliser beside the cross-entropy."""


@attrs.frozen(kw_only=True)
class WeightedMSE:
    """Options of `weighted-mse`."""

    weights: tuple[float, ...] = attrs.field(validator=_all_above_0)
    """Weight of each output, in the order of data.label_field."""


@attrs.frozen(kw_only=True)
class Huber:
    """Options of `huber`."""

    delta: float = attrs.field(default=1.0, validator=_above_0)
    """Error from which on the loss grows linearly."""


@attrs.frozen(kw_only=True)
class BCE:
    """Options of `bce`."""

    pos_weight: tuple[float, ...] | None = attrs.field(default=None, validator=_all_above_0)
    """Weight of a label where it holds, for each label; left out, 1."""
