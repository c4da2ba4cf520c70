"""Recognise overfitting from the losses that a run logged."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

_LEAST_RISE = 0.01


def overfitting_warning(history: Iterable[Mapping[str, Any]]) -> str | None:
    """Describe a rise of the held-out loss in two evaluations in a row, while the training loss fell.

    Args:
        history: the entries of `TrainerState.log_history`.

    Returns:
        A warning, if the latest evaluation is the first one that shows such a rise.
    """
    history = list(history)
    held_out = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    steps, texts = list(held_out), []
    for first, middle, last in zip(steps, steps[1:], steps[2:], strict=False):
        low, between, high = (held_out[step] for step in (first, middle, last))
        before, after = _training_loss(history, first, middle), _training_loss(history, middle, last)
        rises = low < between < high and high - low > _LEAST_RISE * abs(low)
        if rises and before is not None and after is not None and after < before:
            rise = f"held-out loss has risen from {low:.4g} at step {first} to {high:.4g} at step {last}"
            texts.append((last, f"{rise} while training loss fell from {before:.4g} to {after:.4g}"))
    if len(texts) != 1 or texts[0][0] != steps[-1]:
        return None
    hint = "train for fewer epochs or on more rows (the checkpoint with the lowest held-out loss is kept)"
    return f"{texts[0][1]}: the model is overfitting; {hint}"


def _training_loss(history: Iterable[Mapping[str, Any]], after: int, until: int) -> float | None:
    losses = [entry["loss"] for entry in history if "loss" in entry and after < entry["step"] <= until]
    return fmean(losses) if losses else None
