"""Binary cross-entropy per label, for rows with several labels."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from smolora_plugins.losses.per_class import per_class


def bce(predictions: Tensor, targets: Tensor, *, pos_weight: Sequence[float] | None) -> Tensor:
    """`-pos_weight[k] * t * log p - (1 - t) * log(1 - p)`, `p` from logits: `[B, K]`, `[B, K]` in [0, 1] -> `[B, K]`."""
    positive = None if pos_weight is None else per_class("pos_weight", pos_weight, predictions, "label")
    return F.binary_cross_entropy_with_logits(predictions, targets, reduction="none", pos_weight=positive)
