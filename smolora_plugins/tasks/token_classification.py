"""Classification of words: a word's tag goes to its first token, and the other tokens have none."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from smolora_core import Drop, Encoded, TaskSetup
from smolora_core.batches import IGNORED, pad
from smolora_core.data import Example
from smolora_plugins.tasks.labels import check_labels, column, label_config, sort_names
from smolora_plugins.tasks.metrics import class_metrics, entity_metrics

_NO_TOKENS = Drop("no tokens to label")


class TokenClassification:
    """Encode and collate for a model that labels each word; in an encoded row, a token without a tag has an empty one."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise sentences in one call; tokens are matched to words by their offsets in the text."""
        if not examples:
            return []
        texts = [example.text for example in examples]
        options = {"return_offsets_mapping": True, "return_attention_mask": False, "verbose": False}
        full = tokenizer(texts, **options)["input_ids"]
        cut = tokenizer(texts, truncation=True, max_length=max_length, **options)
        results: list[Encoded | Drop] = []
        for example, full_ids, ids, spans in zip(examples, full, cut["input_ids"], cut["offset_mapping"], strict=True):
            tags = list(_tags(example, spans))
            tagged = sum(map(bool, tags))
            sequence = {"input_ids": ids, "tags": tags}
            results.append(Encoded((sequence,), tagged, len(full_ids) - len(ids)) if tagged else _NO_TOKENS)
        return results

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Number the tags: names alphabetically, numbers by value."""
        splits = [setup.train, *([setup.held_out] if setup.held_out is not None else [])]
        train, *held_out = [{tag for tags in column(rows, "tags") for tag in tags if tag} for rows in splits]
        self._names = check_labels(sort_names(train), held_out[0] if held_out else ())
        return label_config(self._names)

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad on the right; `labels` are `[B, T]`, -100 except at the first token of each word."""
        tag_ids = {"": IGNORED, **{name: number for number, name in enumerate(self._names)}}
        labelled = [{**row, "labels": [tag_ids[tag] for tag in row["tags"]]} for row in rows]
        return pad([{name: each for name, each in row.items() if name != "tags"} for row in labelled], pad_token_id)

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep the predicted and the actual tag: `[n, 2]`."""
        return torch.stack([outputs.argmax(-1), targets], dim=-1)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Compute accuracy and macro-F1 over tags, and F1 over entities if the tags are BIO."""
        metrics = class_metrics(observed, len(self._names))
        if not all(name == "O" or name[:2] in ("B-", "I-") for name in self._names):
            return metrics
        sentences = [
            [[self._names[tag] for tag in tags] for tags in each.T.tolist()]
            for each in observed.split(torch.unique_consecutive(rows, return_counts=True)[1].tolist())
        ]
        return {**metrics, **entity_metrics([each[0] for each in sentences], [each[1] for each in sentences])}


def _tags(example: Example, spans: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield a tag for each token: its word's if it is the first token of the word, else an empty one."""
    # The text is the words joined by single spaces.
    ends = list(accumulate((1 + len(word) for word in example.tokens), initial=-1))[1:]
    word = 0
    for start, stop in spans:
        # A token may begin with the space before its word.
        while word < len(ends) and max(start, ends[word] - len(example.tokens[word])) >= ends[word]:
            word += 1
        inside = word < len(ends) and stop > max(start, ends[word] - len(example.tokens[word]))
        yield example.labels[word] if inside else ""
        word += inside
