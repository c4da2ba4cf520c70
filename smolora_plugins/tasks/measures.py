"""Metrics of what an evaluation has kept, computed in float64."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def observe_tokens(logits: Tensor, targets: Tensor) -> Tensor:
    """Keep of each token its negative log-likelihood, and whether it was the likeliest: `[n, 2]`."""
    return torch.stack([cross_entropy(logits, targets, reduction="none"), (logits.argmax(-1) == targets).float()], dim=-1)


def token_measures(observed: Tensor) -> dict[str, float]:
    """Perplexity, whatever the loss was, and the share of tokens that were the likeliest."""
    likelihood, right = observed.double().mean(0).tolist()
    return {"perplexity": math.exp(min(likelihood, 700.0)), "token_accuracy": right}


def class_measures(observed: Tensor, classes: int) -> dict[str, float]:
    """Accuracy, and macro-F1: the mean of the F1 of every class that was predicted or right, as in scikit-learn."""
    predicted, right = observed.long().unbind(-1)
    counts = torch.bincount(right * classes + predicted, minlength=classes**2).view(classes, classes)
    return {
        "accuracy": (predicted == right).double().mean().item(),
        "macro_f1": _mean_f1(counts.diagonal(), counts.sum(0), counts.sum(1)),
    }


def label_measures(observed: Tensor) -> dict[str, float]:
    """The share of rows with all labels right, and macro-F1 over the labels."""
    predicted, right = observed.bool().chunk(2, dim=-1)
    counts = (predicted & right).sum(0), predicted.sum(0), right.sum(0)
    return {"accuracy": (predicted == right).all(-1).double().mean().item(), "macro_f1": _mean_f1(*counts)}


def score_measures(observed: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Pearson, Spearman and RMSE of each output; one that does not vary correlates with nothing."""
    predicted, right = (each.T for each in np.split(observed.double().numpy(), 2, axis=1))
    measures: dict[str, float] = {}
    for name, one, other in zip(names, predicted, right, strict=True):
        end = f"_{name}" if len(names) > 1 else ""
        measures[f"pearson{end}"] = _correlation(one, other)
        measures[f"spearman{end}"] = _correlation(_ranks(one), _ranks(other))
        measures[f"rmse{end}"] = float(np.sqrt(np.mean((one - other) ** 2)))
    return measures


def entity_measures(predicted: Sequence[Sequence[str]], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall of whole entities in BIO tags, as conlleval counts them; a stray `I-` begins one."""
    found, there = ({(row, *each) for row, tags in enumerate(rows) for each in _entities(tags)} for rows in (predicted, right))
    hits = len(found & there)
    precision, recall = hits / max(1, len(found)), hits / max(1, len(there))
    f1 = 2 * hits / max(1, len(found) + len(there))
    return {"entity_f1": f1, "entity_precision": precision, "entity_recall": recall}


def _mean_f1(hits: Tensor, predicted: Tensor, right: Tensor) -> float:
    met = predicted + right > 0
    return (2 * hits[met].double() / (predicted + right)[met]).mean().item() if met.any() else 0.0


def _correlation(
    one: "np.ndarray[tuple[int], np.dtype[np.float64]]", other: "np.ndarray[tuple[int], np.dtype[np.float64]]"
) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale > 0 else 0.0


def _ranks(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Rank values; equal ones share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean: np.ndarray[tuple[int], np.dtype[np.float64]] = (ends - (counts - 1) / 2)[inverse]
    return mean


def _entities(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and type of each entity."""
    start, kind = 0, ""
    for at, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind and (mark != "I" or name != kind):
            yield start, at, kind
            kind = ""
        if not kind and mark in ("B", "I"):
            start, kind = at, name or tag
