"""Losses for a training loop of one's own; a run chooses its loss by name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WeightedMSELoss(nn.Module):
    """Mean squared error with weights: `mean(weights * (predictions - targets) ** 2)`.

    The mean divides by the number of values, not by the weights. In a run, `loss: {name: weighted-mse, weights: [...]}` is
    the same.

    Example:
        >>> loss = WeightedMSELoss([1, 2, 0.5])
        >>> loss(torch.zeros(4, 3), torch.ones(4, 3)).item()
        1.1666666269302368
    """

    weights: Tensor | None

    def __init__(self, weights: Tensor | Sequence[float] | None = None) -> None:
        """Make the loss.

        Args:
            weights: one for each output, or a tensor of a shape that broadcasts to the predictions'; None for all 1.
        """
        super().__init__()
        # A buffer goes to the device with the module; it is not learned, so no part of what is saved.
        self.register_buffer("weights", None if weights is None else torch.as_tensor(weights), persistent=False)

    def forward(self, predictions: Tensor, targets: Tensor, row_weights: Tensor | None = None) -> Tensor:
        """Compute the mean.

        Args:
            predictions: `[B, ...]`.
            targets: of the same shape.
            row_weights: `[B]`, how much each row counts in the mean, as `data.weight_field` in a run; None for alike.

        Raises:
            ValueError: two shapes do not fit; broadcasting them would give a number that means nothing.
        """
        if predictions.shape != targets.shape:
            raise ValueError(f"predictions have shape {list(predictions.shape)}, targets {list(targets.shape)}")
        losses = (predictions - targets) ** 2
        if self.weights is not None:
            losses = _spread(self.weights, losses) * losses
        if row_weights is None:
            return losses.mean()
        if row_weights.shape != losses.shape[:1]:
            raise ValueError(f"row_weights have shape {list(row_weights.shape)}, predictions {list(losses.shape)}")
        rows = row_weights.to(losses.dtype).reshape(-1, *[1] * (losses.dim() - 1)).expand_as(losses)
        return (rows * losses).sum() / rows.sum()


def _spread(weights: Tensor, losses: Tensor) -> Tensor:
    try:
        return weights.to(losses.dtype).expand_as(losses)
    except RuntimeError:
        raise ValueError(f"weights have shape {list(weights.shape)}, predictions {list(losses.shape)}") from None
