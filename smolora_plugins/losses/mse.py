"""Squared error."""

import torch.nn.functional as F
from torch import Tensor


def mse(predictions: Tensor, targets: Tensor) -> Tensor:
    """`(prediction - target) ** 2`: `predictions [B, ...]`, `targets [B, ...]` -> `[B, ...]`."""
    return F.mse_loss(predictions, targets, reduction="none")
