"""Options of the built-in losses, validated with the config."""

import attrs

from smolora_core.config import above, at_least, each_above, probability


@attrs.frozen(kw_only=True)
class LabelSmoothing:
    """Options of `label-smoothing`."""

    smoothing: float = attrs.field(default=0.1, validator=probability)
    """The share of the target's probability spread evenly over all classes."""


@attrs.frozen(kw_only=True)
class Focal:
    """Options of `focal`."""

    gamma: float = attrs.field(default=2.0, validator=at_least(0))
    """The strength with which well-predicted targets are down-weighted; 0 is plain cross-entropy."""
    alpha: tuple[float, ...] | None = attrs.field(default=None, validator=each_above(0))
    """The weight of each class; equal by default."""


@attrs.frozen(kw_only=True)
class ZLoss:
    """Options of `z-loss`."""

    weight: float = attrs.field(default=1e-4, validator=above(0))
    """The weight of the squared log-normaliser in the loss."""


@attrs.frozen(kw_only=True)
class WeightedMSE:
    """Options of `weighted-mse`."""

    weights: tuple[float, ...] = attrs.field(validator=each_above(0))
    """The weight of each output, in the order of data.label_field."""


@attrs.frozen(kw_only=True)
class Huber:
    """Options of `huber`."""

    delta: float = attrs.field(default=1.0, validator=above(0))
    """The error beyond which the loss grows linearly."""


@attrs.frozen(kw_only=True)
class BCE:
    """Options of `bce`."""

    pos_weight: tuple[float, ...] | None = attrs.field(default=None, validator=each_above(0))
    """The weight of each label's positive rows; 1 by default."""
