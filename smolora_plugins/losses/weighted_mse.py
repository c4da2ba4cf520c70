"""Squared error with a weight per output."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from smolora_plugins.losses.per_class import per_class


def weighted_mse(predictions: Tensor, targets: Tensor, *, weights: Sequence[float]) -> Tensor:
    """`weights[k] * (prediction - target) ** 2`: `predictions [B, K]`, `targets [B, K]` -> `[B, K]`.

    The mean divides by `B * K`, as in `WeightedMSELoss`: doubling the weights doubles the loss.
    """
    return per_class("weights", weights, predictions, "output") * F.mse_loss(predictions, targets, reduction="none")
