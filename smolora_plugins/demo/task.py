"""The fine-tuning task of the demo: turn a note about an animal into one line of JSON.

The base answers these prompts in prose, because its pretraining text never holds an answer in JSON. No name of a
held-out row occurs in any training row, so a right answer was read from the prompt and not remembered.
"""

import json
import random
from typing import Literal

from smolora_plugins.demo import grammar, words

_SEED = 7
_ROWS_PER_TRAINING_NAME = 4


def rows(split: Literal["train", "eval"]) -> list[dict[str, str]]:
    """Return the rows of a split, 512 to train on or 64 held out, each a `prompt` and its `completion`.

    The two splits draw from disjoint sets of names, so they share no row and no complete set of facts. A completion
    ends without the end-of-sequence token.

    Raises:
        ValueError: `split` is neither "train" nor "eval".
    """
    training, held_out = _names()
    if split == "train":
        names = training * _ROWS_PER_TRAINING_NAME
    elif split == "eval":
        names = held_out
    else:
        raise ValueError(f"the demo has the splits 'train' and 'eval', not {split!r}")
    rng = random.Random(f"{_SEED} {split}")  # noqa: S311
    return [_row(rng, name) for name in names]


def _names() -> tuple[list[str], list[str]]:
    """Split the names into 128 to train on and 64 to hold out."""
    names = sorted({*words.HER_NAMES, *words.HIS_NAMES})
    random.Random(_SEED).shuffle(names)  # noqa: S311
    return names[64:192], names[:64]


def _row(rng: random.Random, name: str) -> dict[str, str]:
    subject = grammar.being(rng, name)
    facts = {"name": subject.name, "animal": subject.animal, "age": subject.age, "home": subject.home}
    return {
        "prompt": f"{grammar.introduction(rng, subject)} {grammar.inquiry(rng, subject)}",
        # The line break that the answer begins with is learned too, so that a prompt can be typed on a command line.
        "completion": f"\n{json.dumps(facts)}",
    }
