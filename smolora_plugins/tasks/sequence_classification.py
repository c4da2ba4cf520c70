"""Classification of texts, which have one label each or several."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smolora_core import ConfigError, Drop, Encoded, TaskSetup
from smolora_core.batches import pad
from smolora_core.data import Example
from smolora_plugins.tasks.labels import column, config_of, filling, in_order, known_ones
from smolora_plugins.tasks.measures import class_measures, label_measures
from smolora_plugins.tasks.texts import cut_ids

_NOTHING = Drop("there is no token to classify")
_LIST = "\0"
_PROBLEMS = {False: "single_label_classification", True: "multi_label_classification"}


class SequenceClassification:
    """Encodes and collates for a model that says what a text is.

    An encoded row has its label as text; several labels are a JSON list behind a mark, so that the column has one type.
    """

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._several = False

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise texts in one call; what is longer than a sequence is cut off."""
        encoded = zip(examples, cut_ids(tokenizer, [example.text for example in examples], max_length), strict=True)
        return [
            Encoded(({"input_ids": ids, "label": _spelt(example.labels[0])},), 1, lost) if ids else _NOTHING
            for example, (ids, lost) in encoded
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Number the labels: names in their order, numbers by size, columns as the config lists them."""
        train = set(column(setup.train, "label"))
        held_out = set(column(setup.held_out, "label")) if setup.held_out is not None else set()
        lists = {label for label in train if label.startswith(_LIST)}
        self._several = bool(lists)
        if lists and lists != train:
            raise ConfigError("some rows have one label and some a list of labels", where="data.train:")
        if isinstance(setup.label_field, tuple) and len(setup.label_field) > 1:
            names = list(setup.label_field)
        else:
            names = known_ones(in_order(_names(train)), _names(held_out))
        self._number = {name: number for number, name in enumerate(names)}
        return {**config_of(names, _PROBLEMS[self._several]), **filling(setup)}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad texts; `labels` are classes `[B]`, or `[B, C]` of 0 and 1 where a row may have several."""
        batch = pad([{name: each for name, each in row.items() if name != "label"} for row in rows], pad_token_id)
        if not self._several:
            return {**batch, "labels": torch.tensor([self._number[row["label"]] for row in rows])}
        held = [{self._number[name] for name in _names([row["label"]])} for row in rows]
        labels = [[float(number in each) for number in range(len(self._number))] for each in held]
        return {**batch, "labels": torch.tensor(labels)}

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep the predicted class and the right one, or which labels are predicted and which are right."""
        if targets.dim() == outputs.dim():
            return torch.cat([outputs > 0, targets > 0.5], dim=-1)
        return torch.stack([outputs.argmax(-1), targets], dim=-1)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Accuracy, and F1 averaged over the classes."""
        return label_measures(observed) if self._several else class_measures(observed, len(self._number))


def _spelt(label: Any) -> str:
    if isinstance(label, list):
        return _LIST + json.dumps(in_order(_spelt(each) for each in label), ensure_ascii=False)
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _names(labels: Iterable[str]) -> Iterator[str]:
    for label in labels:
        yield from json.loads(label[len(_LIST) :]) if label.startswith(_LIST) else [label]
