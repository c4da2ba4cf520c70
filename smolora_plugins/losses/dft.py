"""Dynamic fine-tuning: cross-entropy that focuses on likely targets."""

import torch.nn.functional as F
from torch import Tensor


def dft(logits: Tensor, targets: Tensor) -> Tensor:
    """`-p[t] * log p[t]`, with the factor `p[t]` held constant: `logits [n, C]`, `targets [n]` -> `[n]`.

    Wu et al. 2025, "On the Generalization of SFT"; the same as TRL's `loss_type="dft"`.
    """
    nll = F.cross_entropy(logits, targets, reduction="none")
    return (-nll).exp().detach() * nll
