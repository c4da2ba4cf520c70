"""Squared error whose outputs count differently."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from smolora_plugins.losses.per_class import per_class


def weighted_mse(predictions: Tensor, targets: Tensor, *, weights: Sequence[float]) -> Tensor:
    """`weights[k] * (prediction - target) ** 2`: `predictions [B, K]`, `targets [B, K]` -> `[B, K]`.

    The mean is over all `B * K` values, as in `WeightedMSELoss`: weights twice as large make a loss twice as large.
    """
    return per_class("weights", weights, predictions, "output") * F.mse_loss(predictions, targets, reduction="none")
