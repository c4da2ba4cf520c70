"""Losses for your own training loop; a run chooses its loss by name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WeightedMSELoss(nn.Module):
    """Mean squared error with weights: `mean(weights * (predictions - targets) ** 2)`.

    The mean divides by the number of values, not by the sum of the weights; in a run, this is the loss `weighted-mse`.

    Args:
        weights: one weight per output, or a tensor that broadcasts to the predictions; None weights everything equally.

    Example:
        >>> loss = WeightedMSELoss([1, 2, 0.5])
        >>> loss(torch.zeros(4, 3), torch.ones(4, 3)).item()
        1.1666666269302368
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | Sequence[float] | None = None) -> None:
        super().__init__()
        # A buffer moves to the device with the module; these weights are a setting, so state_dict omits them.
        self.register_buffer("weights", None if weights is None else torch.as_tensor(weights), persistent=False)

    def forward(self, predictions: Tensor, targets: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """Compute the weighted mean.

        Args:
            predictions: `[B, ...]`.
            targets: the same shape as `predictions`.
            row_weights: `[B]`, each row's weight in the mean, like `data.weight_field` in a run; None weights rows equally.

        Raises:
            ValueError: the shapes do not match.
        """
        if predictions.shape != targets.shape:
            raise ValueError(f"predictions have shape {list(predictions.shape)}, targets {list(targets.shape)}")
        losses = (predictions - targets) ** 2
        if self.weights is not None:
            try:
                losses = self.weights.to(losses.dtype).expand_as(losses) * losses
            except RuntimeError:
                raise ValueError(f"weights have shape {list(self.weights.shape)}, predictions {list(losses.shape)}") from None
        if row_weights is None:
            return losses.mean()
        if row_weights.shape != losses.shape[:1]:
            raise ValueError(f"row_weights have shape {list(row_weights.shape)}, predictions {list(losses.shape)}")
        rows = row_weights.to(losses.dtype).reshape(-1, *[1] * (losses.dim() - 1)).expand_as(losses)
        return (rows * losses).sum() / rows.sum()
