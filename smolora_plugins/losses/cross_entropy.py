"""Cross-entropy."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target: `logits [n, V]`, `targets [n]` -> `[n]`."""
    return F.cross_entropy(logits, targets, reduction="none")
