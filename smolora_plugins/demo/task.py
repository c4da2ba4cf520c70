"""The fine-tuning task of the demo: turn a note about an animal into one line of JSON.

The base model answers these prompts in prose, because its pretraining text contains no JSON answers. Held-out names never
occur in training rows, so a correct answer was read from the prompt, not memorised.
"""

import json
import random
from typing import Literal

from smolora_plugins.demo import grammar, words

_SEED = 7
_ROWS_PER_TRAINING_NAME = 4


def rows(split: Literal["train", "eval"]) -> list[dict[str, str]]:
    """Return the 512 training rows or the 64 held-out rows, each with a `prompt` and a `completion`.

    The splits use disjoint sets of names, so they share no rows. Completions do not contain the end-of-sequence token.

    Raises:
        ValueError: `split` is neither "train" nor "eval".
    """
    training, held_out = _names()
    if split == "train":
        names = training * _ROWS_PER_TRAINING_NAME
    elif split == "eval":
        names = held_out
    else:
        raise ValueError(f"unknown split {split!r}: use 'train' or 'eval'")
    rng = random.Random(f"{_SEED} {split}")  # noqa: S311
    return [_row(rng, name) for name in names]


def _names() -> tuple[list[str], list[str]]:
    """Split the names into 128 for training and 64 for evaluation."""
    names = sorted({*words.HER_NAMES, *words.HIS_NAMES})
    random.Random(_SEED).shuffle(names)  # noqa: S311
    return names[64:192], names[:64]


def _row(rng: random.Random, name: str) -> dict[str, str]:
    subject = grammar.being(rng, name)
    facts = {"name": subject.name, "animal": subject.animal, "age": subject.age, "home": subject.home}
    return {
        "prompt": f"{grammar.introduction(rng, subject)} {grammar.inquiry(rng, subject)}",
        # The answer starts with the line break, so that a prompt can be typed on a command line.
        "completion": f"\n{json.dumps(facts)}",
    }
