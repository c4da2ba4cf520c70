"""Cross-entropy with smoothed targets."""

import torch.nn.functional as F
from torch import Tensor


def label_smoothing(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy with `(1 - smoothing) * target + smoothing / C`: `logits [n, C]`, `targets [n]` -> `[n]`.

    Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.
    """
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
