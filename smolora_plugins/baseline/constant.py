"""The best answer that ignores its input, and the loss and metrics that it gets."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from smolora_core import Loss
from smolora_core.batches import IGNORED

# Enough for two digits; together they take about a second.
_TOKENS = 2**20
_LOGITS = 2**28
_CHUNK_LOGITS = 2**24
_ROWS = 256


@attrs.frozen
class Targets:
    """Supervised targets of a sample of rows.

    Attributes:
        values: classes or tokens `[n]`, or numbers `[n, ...]`.
        rows: the row of the sample that each belongs to, `[n]`.
        weights: the weight of that row, `[n]`.
        columns: the columns that the loss needs, `[n]` each.
    """

    values: Tensor
    rows: Tensor
    weights: Tensor
    columns: Mapping[str, Tensor]

    def take(self, chosen: Tensor) -> "Targets":
        """Select targets by index."""
        columns = {name: each[chosen] for name, each in self.columns.items()}
        return Targets(self.values[chosen], self.rows[chosen], self.weights[chosen], columns)


def read_targets(dataset: Any, collate: Callable[..., Any], predicts: str, loss: Loss, weight_field: str | None) -> Targets:
    """Collate rows in a random order, up to a million tokens, and keep their targets.

    Args:
        dataset: the encoded rows.
        collate: makes a padded micro-batch of rows.
        predicts: what the logits predict, as in the task's record.
        loss: the record of the loss.
        weight_field: the column of row weights.
    """
    parts: list[tuple[Tensor, ...]] = []
    rows = tokens = 0
    # A generator of its own leaves the run's random numbers alone.
    generator = torch.Generator().manual_seed(0)
    for batch in DataLoader(dataset, _ROWS, shuffle=True, collate_fn=collate, generator=generator):
        labels = batch["labels"][:, 1:] if predicts == "next-token" else batch["labels"]
        if loss.kind == "prediction":
            labels = labels.float()
        at = torch.arange(len(labels))[:, None] if labels.is_floating_point() else (labels != IGNORED).nonzero()
        row = at[:, 0]
        weights = batch[weight_field][row].double() if weight_field else torch.ones(len(row), dtype=torch.double)
        parts.append((labels[tuple(at.T)], row + rows, weights, *(batch[name][row] for name in loss.columns)))
        rows, tokens = rows + len(labels), tokens + batch["input_ids"].numel()
        if tokens >= _TOKENS:
            break
    values, row, weights, *columns = map(torch.cat, zip(*parts, strict=True))
    return Targets(values, row, weights, dict(zip(loss.columns, columns, strict=True)))


def log_frequencies(targets: Targets, width: int) -> Tensor:
    """Compute the logits `[V]` of the targets' weighted frequencies.

    Targets that never occur share the probability that the next one is new: Witten and Bell 1991, method C.
    """
    counts = torch.bincount(targets.values, targets.weights, minlength=width)
    seen = counts > 0
    kinds, missing = int(seen.sum()), int((~seen).sum())
    new = kinds / (kinds + len(targets.values)) if missing else 0.0
    shares = torch.where(seen, (1 - new) * counts / counts.sum(), new / max(1, missing))
    return shares.log().float()


def average(targets: Targets, loss: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean of numbers `[n, ...]`, and the answer `[...]` that predicts it: itself, or its log-odds.

    A loss of probabilities takes log-odds: the answer is the one of the two with the lower loss.
    """
    values = targets.values.double()
    mean = torch.tensordot(targets.weights / targets.weights.sum(), values, 1)
    answers = [mean.float()]
    if ((values >= 0) & (values <= 1)).all():
        least = 0.5 / len(values)
        answers.append(mean.clamp(least, 1 - least).logit().float())
    return mean, min(answers, key=lambda answer: measure(answer, targets, loss)["loss"])


def measure(answer: Tensor, targets: Targets, loss: Callable[..., Tensor], task: Any = None) -> dict[str, float]:
    """Compute the mean loss and the task's metrics of one answer to all targets: logits `[V]`, or numbers `[...]`."""
    is_logits = not targets.values.is_floating_point()
    if is_logits:
        targets = _sample(targets, _LOGITS // len(answer))
    # Equal targets have equal losses, unless these depend on other columns.
    one_of_each = inverse = torch.arange(len(targets.values))
    if is_logits and not targets.columns:
        distinct, inverse = targets.values.unique(return_inverse=True)
        one_of_each = torch.empty_like(distinct).scatter_(0, inverse, torch.arange(len(inverse)))
    losses, observed = [], []
    for chosen in one_of_each.split(max(1, _CHUNK_LOGITS // answer.numel())):
        part = targets.take(chosen)
        outputs = answer.expand(len(chosen), *answer.shape)
        losses.append(loss(outputs, part.values, **{name: _per_row(each, part.values) for name, each in part.columns.items()}))
        if hasattr(task, "observe"):
            observed.append(task.observe(outputs, part.values))
    every = torch.cat(losses)[inverse].double()
    weights = _per_row(targets.weights, every).expand_as(every)
    metrics = task.metrics(torch.cat(observed)[inverse], targets.rows) if observed else {}
    return {"loss": float((every * weights).sum() / weights.sum()), **metrics}


def _per_row(values: Tensor, like: Tensor) -> Tensor:
    """Shape values `[n]` so that they broadcast over each row of `[n, ...]`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def _sample(targets: Targets, most: int) -> Targets:
    if len(targets.values) <= most:
        return targets
    chosen = torch.randperm(len(targets.values), generator=torch.Generator().manual_seed(0))[:most]
    return targets.take(chosen.sort().values)
