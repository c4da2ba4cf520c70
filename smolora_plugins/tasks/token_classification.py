"""Classification of tokens: the first piece of a word has its tag, the others have none."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smolora_core import Drop, Encoded, TaskSetup
from smolora_core.batches import IGNORED, pad
from smolora_core.data import Example
from smolora_plugins.tasks.labels import column, config_of, in_order, known_ones
from smolora_plugins.tasks.measures import class_measures, entity_measures

_NOTHING = Drop("there is no token to tag")


class TokenClassification:
    """Encodes and collates for a model that says what each word is. A piece without a tag of its own has an empty one."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise sentences in one call; words are found again by where they stand in the text."""
        if not examples:
            return []
        texts = [example.text for example in examples]
        options = {"return_offsets_mapping": True, "return_attention_mask": False, "verbose": False}
        whole = tokenizer(texts, **options)
        cut = tokenizer(texts, truncation=True, max_length=max_length, **options)
        made: list[Encoded | Drop] = []
        for example, all_ids, ids, spans in zip(
            examples, whole["input_ids"], cut["input_ids"], cut["offset_mapping"], strict=True
        ):
            tags = list(_tags(example, spans))
            tagged = sum(map(bool, tags))
            sequence = {"input_ids": ids, "tags": tags}
            made.append(Encoded((sequence,), tagged, len(all_ids) - len(ids)) if tagged else _NOTHING)
        return made

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Number the tags: names in their order, numbers by size."""
        sides = [setup.train, *([setup.held_out] if setup.held_out is not None else [])]
        train, *held_out = [{tag for tags in column(side, "tags") for tag in tags if tag} for side in sides]
        self._names = known_ones(in_order(train), held_out[0] if held_out else ())
        return config_of(self._names)

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad on the right; `labels` are `[B, T]`, -100 on all but the first pieces of words."""
        number = {"": IGNORED, **{name: at for at, name in enumerate(self._names)}}
        numbered = [{**row, "labels": [number[tag] for tag in row["tags"]]} for row in rows]
        return pad([{name: each for name, each in row.items() if name != "tags"} for row in numbered], pad_token_id)

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep the predicted tag and the right one."""
        return torch.stack([outputs.argmax(-1), targets], dim=-1)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Accuracy and macro-F1 of tags; of BIO tags, F1 of entities too."""
        measures = class_measures(observed, len(self._names))
        if not all(name == "O" or name[:2] in ("B-", "I-") for name in self._names):
            return measures
        sentences = [
            [[self._names[tag] for tag in tags] for tags in each.T.tolist()]
            for each in observed.split(torch.unique_consecutive(rows, return_counts=True)[1].tolist())
        ]
        return {**measures, **entity_measures([each[0] for each in sentences], [each[1] for each in sentences])}


def _tags(example: Example, spans: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield a tag for each piece: the word's, if it is the first one that reaches into the word."""
    ends = []
    end = -1
    for token in example.tokens:
        end += 1 + len(token)
        ends.append(end)
    word = 0
    for start, stop in spans:
        # A piece may begin with the space before its word.
        while word < len(ends) and max(start, ends[word] - len(example.tokens[word])) >= ends[word]:
            word += 1
        inside = word < len(ends) and stop > max(start, ends[word] - len(example.tokens[word]))
        yield example.labels[word] if inside else ""
        word += inside
