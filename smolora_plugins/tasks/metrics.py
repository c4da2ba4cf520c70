"""Metrics over everything that an evaluation observed, computed in float64."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


def observe_tokens(logits: Tensor, targets: Tensor) -> Tensor:
    """Keep each token's negative log-likelihood, and whether it was the most likely one: `[n, 2]`."""
    return torch.stack([cross_entropy(logits, targets, reduction="none"), (logits.argmax(-1) == targets).float()], dim=-1)


def token_metrics(observed: Tensor) -> dict[str, float]:
    """Compute perplexity, whatever the loss, and the share of tokens that were the most likely."""
    nll, accuracy = observed.double().mean(0).tolist()
    return {"perplexity": math.exp(min(nll, 700.0)), "token_accuracy": accuracy}


def class_metrics(observed: Tensor, classes: int) -> dict[str, float]:
    """Compute accuracy and macro-F1; as in scikit-learn, the mean leaves out classes neither predicted nor present."""
    predicted, actual = observed.long().unbind(-1)
    counts = torch.bincount(actual * classes + predicted, minlength=classes**2).view(classes, classes)
    return {
        "accuracy": (predicted == actual).double().mean().item(),
        "macro_f1": _mean_f1(counts.diagonal(), counts.sum(0), counts.sum(1)),
    }


def label_metrics(observed: Tensor) -> dict[str, float]:
    """Compute the share of rows with every label right, and macro-F1 over the labels."""
    predicted, actual = observed.bool().chunk(2, dim=-1)
    counts = (predicted & actual).sum(0), predicted.sum(0), actual.sum(0)
    return {"accuracy": (predicted == actual).all(-1).double().mean().item(), "macro_f1": _mean_f1(*counts)}


def score_metrics(observed: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Compute Pearson, Spearman and RMSE of each output; correlations with a constant are 0."""
    predicted, actual = (each.T for each in np.split(observed.double().numpy(), 2, axis=1))
    metrics: dict[str, float] = {}
    for name, one, other in zip(names, predicted, actual, strict=True):
        suffix = f"_{name}" if len(names) > 1 else ""
        metrics[f"pearson{suffix}"] = _correlation(one, other)
        metrics[f"spearman{suffix}"] = _correlation(_ranks(one), _ranks(other))
        metrics[f"rmse{suffix}"] = float(np.sqrt(np.mean((one - other) ** 2)))
    return metrics


def entity_metrics(predicted: Sequence[Sequence[str]], actual: Sequence[Sequence[str]]) -> dict[str, float]:
    """Compute F1, precision and recall of whole entities in BIO tags, as conlleval does; a stray `I-` starts an entity."""
    found, present = (
        {(row, *each) for row, tags in enumerate(rows) for each in _entities(tags)} for rows in (predicted, actual)
    )
    hits = len(found & present)
    precision, recall = hits / max(1, len(found)), hits / max(1, len(present))
    f1 = 2 * hits / max(1, len(found) + len(present))
    return {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}


def _mean_f1(hits: Tensor, predicted: Tensor, actual: Tensor) -> float:
    occurs = predicted + actual > 0
    return (2 * hits[occurs].double() / (predicted + actual)[occurs]).mean().item() if occurs.any() else 0.0


def _correlation(one: Vector, other: Vector) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale > 0 else 0.0


def _ranks(values: Vector) -> Vector:
    """Rank values; ties share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Vector = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _entities(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the start, end and type of each entity."""
    start, kind = 0, ""
    for position, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind and (mark != "I" or name != kind):
            yield start, position, kind
            kind = ""
        if not kind and mark in ("B", "I"):
            start, kind = position, name or tag
