"""Built-in losses."""

from collections.abc import Iterable

from smolora_core import Loss, hookimpl
from smolora_plugins.losses import options


@hookimpl
def smolora_losses() -> Iterable[Loss]:
    """Register the built-in losses."""
    yield Loss(
        name="cross-entropy",
        summary="negative log-likelihood of the target token or class",
        implementation="smolora_plugins.losses.cross_entropy:cross_entropy",
    )
    yield Loss(
        name="label-smoothing",
        summary="cross-entropy with targets smoothed over all classes",
        options=options.LabelSmoothing,
        implementation="smolora_plugins.losses.label_smoothing:label_smoothing",
    )
    yield Loss(
        name="focal",
        summary="cross-entropy that down-weights well-predicted targets",
        options=options.Focal,
        implementation="smolora_plugins.losses.focal:focal",
    )
    yield Loss(
        name="z-loss",
        summary="cross-entropy with a penalty that keeps the softmax normaliser near 1",
        options=options.ZLoss,
        implementation="smolora_plugins.losses.z_loss:z_loss",
    )
    yield Loss(
        name="dft",
        summary="cross-entropy scaled by the target's probability (dynamic fine-tuning)",
        implementation="smolora_plugins.losses.dft:dft",
    )
    yield Loss(
        name="mse",
        summary="squared error",
        kind="prediction",
        implementation="smolora_plugins.losses.mse:mse",
    )
    yield Loss(
        name="weighted-mse",
        summary="squared error with a weight per output",
        kind="prediction",
        options=options.WeightedMSE,
        implementation="smolora_plugins.losses.weighted_mse:weighted_mse",
    )
    yield Loss(
        name="huber",
        summary="squared error up to a threshold, absolute error beyond it",
        kind="prediction",
        options=options.Huber,
        implementation="smolora_plugins.losses.huber:huber",
    )
    yield Loss(
        name="bce",
        summary="binary cross-entropy per label, for rows with several labels",
        kind="prediction",
        options=options.BCE,
        implementation="smolora_plugins.losses.bce:bce",
    )
