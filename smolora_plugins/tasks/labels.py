"""Label names: collected from encoded rows, sorted, validated and numbered."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from smolora_core import DatasetError, TaskSetup


def column(rows: Iterable[Mapping[str, Any]], name: str) -> Iterable[Any]:
    """Yield the values of a column of a dataset or a stream."""
    if hasattr(rows, "select_columns"):
        rows = rows.select_columns([name])
    return (row[name] for row in (rows.in_order() if hasattr(rows, "in_order") else rows))


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort distinct names: numbers by value, then the rest alphabetically."""
    return sorted(set(names), key=lambda name: (_number(name), name))


def check_labels(names: list[str], held_out: Iterable[str]) -> list[str]:
    """Return `names` if there are at least two, and the held-out rows have no others.

    Raises:
        DatasetError: there are fewer than two labels, or a held-out label is not in the training rows.
    """
    if len(names) < 2:
        raise DatasetError(f"every row is labelled {names[0]!r}" if names else "no row has a label", where="data.train:")
    if new := sort_names(set(held_out).difference(names)):
        what = f"label {new[0]!r} occurs in held-out rows but not in training rows"
        raise DatasetError(what, where="data.eval:", hint=f"the training labels are: {', '.join(names)}")
    return names


def label_config(names: list[str], problem_type: str | None = None) -> dict[str, Any]:
    """Describe labels as a model's config does; token classification has no problem type."""
    labels = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }
    return {**labels, "problem_type": problem_type} if problem_type else labels


def padding_config(setup: TaskSetup) -> dict[str, Any]:
    """Set the padding token of a model that has none: a decoder classifies at the last token before padding."""
    known = getattr(setup.model_config.get_text_config(), "pad_token_id", None)
    return {} if known is not None else {"pad_token_id": setup.pad_token_id}


def _number(name: str) -> float:
    try:
        number = float(name)
    except ValueError:
        return math.inf
    return number if math.isfinite(number) else math.inf
