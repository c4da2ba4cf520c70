"""Cross-entropy with a penalty that keeps the softmax normaliser near 1."""

import torch.nn.functional as F
from torch import Tensor


def z_loss(logits: Tensor, targets: Tensor, *, weight: float) -> Tensor:
    """`-log p[t] + weight * log(Z) ** 2`, `Z` being the sum of exponentials: `logits [n, C]`, `targets [n]` -> `[n]`.

    Chowdhery et al. 2022, "PaLM: Scaling Language Modeling with Pathways", section 5.
    """
    return F.cross_entropy(logits, targets, reduction="none") + weight * logits.logsumexp(-1) ** 2
