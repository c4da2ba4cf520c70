"""Cross-entropy that down-weights well-predicted targets."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from smolora_plugins.losses.per_class import per_class


def focal(logits: Tensor, targets: Tensor, *, gamma: float, alpha: Sequence[float] | None) -> Tensor:
    """`-alpha[t] * (1 - p[t]) ** gamma * log p[t]`: `logits [n, C]`, `targets [n]` -> `[n]`.

    Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5; their scalar `alpha` for two classes is
    `[1 - alpha, alpha]` here.
    """
    nll = F.cross_entropy(logits, targets, reduction="none")
    # Where p rounds to 1, a power below 1 has an infinite slope, and times the loss of 0 its gradient would be NaN.
    missed = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
    losses = missed**gamma * nll
    return losses if alpha is None else per_class("alpha", alpha, logits, "class")[targets] * losses
