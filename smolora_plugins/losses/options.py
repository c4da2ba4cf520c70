"""Options of the built-in losses, checked when the config is."""

import attrs

from smolora_core.config import above, at_least, each_above, probability


@attrs.frozen(kw_only=True)
class LabelSmoothing:
    """Options of `label-smoothing`."""

    smoothing: float = attrs.field(default=0.1, validator=probability)
    """Share of a target's probability that is spread over all classes alike."""


@attrs.frozen(kw_only=True)
class Focal:
    """Options of `focal`."""

    gamma: float = attrs.field(default=2.0, validator=at_least(0))
    """How much less a target counts that is predicted well; 0 is cross-entropy."""
    alpha: tuple[float, ...] | None = attrs.field(default=None, validator=each_above(0))
    """Weight of each class; left out, all count alike."""


@attrs.frozen(kw_only=True)
class ZLoss:
    """Options of `z-loss`."""

    weight: float = attrs.field(default=1e-4, validator=above(0))
    """Weight of the squared log-normaliser beside the cross-entropy."""


@attrs.frozen(kw_only=True)
class WeightedMSE:
    """Options of `weighted-mse`."""

    weights: tuple[float, ...] = attrs.field(validator=each_above(0))
    """Weight of each output, in the order of data.label_field."""


@attrs.frozen(kw_only=True)
class Huber:
    """Options of `huber`."""

    delta: float = attrs.field(default=1.0, validator=above(0))
    """Error from which on the loss grows linearly."""


@attrs.frozen(kw_only=True)
class BCE:
    """Options of `bce`."""

    pos_weight: tuple[float, ...] | None = attrs.field(default=None, validator=each_above(0))
    """Weight of a label where it holds, for each label; left out, 1."""
