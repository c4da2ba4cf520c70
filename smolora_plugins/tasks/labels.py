"""Names of labels: read out of encoded rows, put in order, and numbered."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from smolora_core import DatasetError, TaskSetup


def column(rows: Iterable[Mapping[str, Any]], name: str) -> Iterable[Any]:
    """Yield a column's different values of a dataset, or of each row of a stream."""
    if hasattr(rows, "select_columns"):
        rows = rows.select_columns([name])
    return (row[name] for row in (rows.in_order() if hasattr(rows, "in_order") else rows))


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names; numbers by their size."""
    return sorted(set(names), key=lambda name: (_number(name), name))


def known_ones(names: list[str], held_out: Iterable[str]) -> list[str]:
    """Require that there is something to tell apart, and that the rows held out hold no other labels.

    Raises:
        DatasetError: naming the label.
    """
    if len(names) < 2:
        raise DatasetError(f"every row is labelled {names[0]!r}" if names else "no row has a label", where="data.train:")
    if new := in_order(set(held_out).difference(names)):
        what = f"label {new[0]!r} is on rows held out, and on none to train on"
        raise DatasetError(what, where="data.eval:", hint=f"the labels to train on are: {', '.join(names)}")
    return names


def config_of(names: list[str], problem_type: str | None = None) -> dict[str, Any]:
    """What a model's config says of labels; without a problem type there are as many problems as tokens."""
    said = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: at for at, name in enumerate(names)},
    }
    return {**said, "problem_type": problem_type} if problem_type else said


def filling(setup: TaskSetup) -> dict[str, Any]:
    """Tell a model what fills rows up, where it does not know: a decoder looks for the last token before that."""
    known = getattr(setup.model_config.get_text_config(), "pad_token_id", None)
    return {} if known is not None else {"pad_token_id": setup.pad_token_id}


def _number(name: str) -> float:
    try:
        number = float(name)
    except ValueError:
        return math.inf
    return number if math.isfinite(number) else math.inf
