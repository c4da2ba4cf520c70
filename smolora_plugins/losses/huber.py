"""Squared error that is robust to outliers."""

import torch.nn.functional as F
from torch import Tensor


def huber(predictions: Tensor, targets: Tensor, *, delta: float) -> Tensor:
    """`e ** 2 / 2` up to an error of `delta`, `delta * (|e| - delta / 2)` beyond: `[B, ...]`, `[B, ...]` -> `[B, ...]`.

    Huber 1964, "Robust Estimation of a Location Parameter".
    """
    return F.huber_loss(predictions, targets, reduction="none", delta=delta)
