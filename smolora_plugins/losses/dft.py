"""Dynamic fine-tuning: cross-entropy that looks at what is nearly right."""

import torch.nn.functional as F
from torch import Tensor


def dft(logits: Tensor, targets: Tensor) -> Tensor:
    """`-p[t] * log p[t]`, with `p[t]` as a constant: `logits [n, C]`, `targets [n]` -> `[n]`.

    Wu et al. 2025, "On the Generalization of SFT"; the same as TRL's `loss_type="dft"`.
    """
    nll = F.cross_entropy(logits, targets, reduction="none")
    return (-nll).exp().detach() * nll
