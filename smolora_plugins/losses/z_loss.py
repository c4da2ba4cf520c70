"""Cross-entropy that keeps the logits' normaliser near 1."""

import torch.nn.functional as F
from torch import Tensor


def z_loss(logits: Tensor, targets: Tensor, *, weight: float) -> Tensor:
    """`-log p[t] + weight * log(Z) ** 2`, where `Z` sums the exponentials: `logits [n, C]`, `targets [n]` -> `[n]`.

    Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", section 5.
    """
    return F.cross_entropy(logits, targets, reduction="none") + weight * logits.logsumexp(-1) ** 2
