"""Classification of texts, with one label per text or several."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smolora_core import ConfigError, Drop, Encoded, TaskSetup
from smolora_core.batches import pad
from smolora_core.data import Example
from smolora_plugins.tasks.labels import check_labels, column, label_config, padding_config, sort_names
from smolora_plugins.tasks.metrics import class_metrics, label_metrics
from smolora_plugins.tasks.texts import truncated_ids

_NO_TOKENS = Drop("no tokens to classify")
_LIST_PREFIX = "\0"
_PROBLEM_TYPES = {False: "single_label_classification", True: "multi_label_classification"}


class SequenceClassification:
    """Encode and collate for a model that classifies texts.

    An encoded row stores its label as text, and a list of labels as prefixed JSON, so that the column has one type.
    """

    def __init__(self) -> None:
        self._label_ids: dict[str, int] = {}
        self._multi_label = False

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise texts in one call; long ones are truncated."""
        encoded = zip(examples, truncated_ids(tokenizer, [example.text for example in examples], max_length), strict=True)
        return [
            Encoded(({"input_ids": ids, "label": _as_text(example.labels[0])},), 1, lost) if ids else _NO_TOKENS
            for example, (ids, lost) in encoded
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Number the labels: names alphabetically, numbers by value, columns as the config lists them."""
        train = set(column(setup.train, "label"))
        held_out = set(column(setup.held_out, "label")) if setup.held_out is not None else set()
        lists = {label for label in train if label.startswith(_LIST_PREFIX)}
        self._multi_label = bool(lists)
        if lists and lists != train:
            raise ConfigError("some rows have one label, others a list of labels", where="data.train:")
        if isinstance(setup.label_field, tuple) and len(setup.label_field) > 1:
            names = list(setup.label_field)
        else:
            names = check_labels(sort_names(_names(train)), _names(held_out))
        self._label_ids = {name: number for number, name in enumerate(names)}
        return {**label_config(names, _PROBLEM_TYPES[self._multi_label]), **padding_config(setup)}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad texts; `labels` are classes `[B]`, or 0 and 1 per label `[B, C]` if a row may have several."""
        batch = pad([{name: each for name, each in row.items() if name != "label"} for row in rows], pad_token_id)
        if not self._multi_label:
            return {**batch, "labels": torch.tensor([self._label_ids[row["label"]] for row in rows])}
        present = [{self._label_ids[name] for name in _names([row["label"]])} for row in rows]
        labels = [[float(number in each) for number in range(len(self._label_ids))] for each in present]
        return {**batch, "labels": torch.tensor(labels)}

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep the predicted and the actual class `[n, 2]`, or the predicted and the actual labels `[n, 2 * C]`."""
        if targets.dim() == outputs.dim():
            return torch.cat([outputs > 0, targets > 0.5], dim=-1)
        return torch.stack([outputs.argmax(-1), targets], dim=-1)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Compute accuracy and macro-F1."""
        return label_metrics(observed) if self._multi_label else class_metrics(observed, len(self._label_ids))


def _as_text(label: Any) -> str:
    if isinstance(label, list):
        return _LIST_PREFIX + json.dumps(sort_names(_as_text(each) for each in label), ensure_ascii=False)
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _names(labels: Iterable[str]) -> Iterator[str]:
    for label in labels:
        yield from json.loads(label[len(_LIST_PREFIX) :]) if label.startswith(_LIST_PREFIX) else [label]
