"""Both sides of a run's data, prepared: what the config asks for, what is found in the cache, and what is to be said of it."""

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from smolora_core.components import Task
from smolora_core.config import Resolved
from smolora_core.data.cache import cache_folder
from smolora_core.data.chat.templates import choose_template
from smolora_core.data.fingerprint import (
    components_digest,
    fingerprint,
    sampled_digest,
    sequences_digest,
    source_digest,
    tokenizer_digest,
)
from smolora_core.data.pipeline import Prepared, Recipe, prepare
from smolora_core.data.preprocess import Step
from smolora_core.data.sources import Source
from smolora_core.data.splits import Reader, open_splits
from smolora_core.data.stream import stream
from smolora_core.data.workers import processes_for
from smolora_core.plugins.selection import Choices, Chosen

Emit = Callable[..., None]

_OFTEN = 10
_SECONDS_BETWEEN_REPORTS = 2.0


@attrs.frozen
class Sides:
    """The rows to train on, and those to evaluate on.

    Attributes:
        train: the former.
        held_out: the latter.
        streamed: the files of rows that are prepared while training.
    """

    train: Prepared
    held_out: Prepared | None
    streamed: tuple[Path, ...] = ()

    @property
    def fingerprints(self) -> dict[str, str | None]:
        """Name what is trained and evaluated on, by the config key that it comes by."""
        train = sampled_digest(self.streamed) if self.streamed else sequences_digest(self.train.dataset)
        return {"data.train": train, "data.eval": sequences_digest(self.held_out.dataset) if self.held_out else None}

    def ledgers(self) -> dict[str, Any]:
        """The account of each side, as plain values."""
        return {"train": self.train.ledger.as_dict(), **({"eval": self.held_out.ledger.as_dict()} if self.held_out else {})}


def prepare_sides(resolved: Resolved, choices: Choices, tokenizer: Any, vocab_size: int | None, rows: Any, emit: Emit) -> Sides:
    """Prepare the rows to train on and those to evaluate on.

    Args:
        resolved: the config and where its values stand.
        choices: task, loss and preprocessors.
        tokenizer: of the base model.
        vocab_size: of the model, or None where it is not known.
        rows: a dataset in memory, in place of `data.train`.
        emit: told what is guessed about files, how far it is, and rows that are on both sides.

    Raises:
        DatasetError: as `prepare`.
    """
    config = resolved.config.data
    splits = open_splits(config, resolved.where("data.train"), resolved.where("data.eval"), rows)
    for text in (*splits.notes(), *set_template(tokenizer, resolved)):
        emit("note", text=text)

    digest = cache(source_digest)

    def name_of(source: Source, side: str) -> Path | None:
        recipe = recipe_for(resolved, choices, tokenizer, vocab_size, side)
        name = fingerprint(_depends_on(choices, recipe, digest(source)))
        return cache_folder() / name if name else None

    def side(read: Reader, source: Source, name: str, place: Path | None) -> Prepared:
        recipe = recipe_for(resolved, choices, tokenizer, vocab_size, name)
        processes = processes_for(source.size()) if config.num_proc == "auto" else config.num_proc
        return prepare(read, recipe, place=place, processes=processes, progress=_Progress(emit, name))

    # Named before either is prepared: a step may change what it holds on to.
    sides = {"data.train": not config.streaming, "data.eval": splits.held_out is not None}
    looked_up = [side for side, prepared in sides.items() if config.cache and prepared]
    places = {side: name_of(splits.sources[0 if side == "data.train" else -1], side) for side in looked_up}
    if config.streaming:
        # Training needs the processors more than the rows do.
        processes = 1 if config.num_proc == "auto" else config.num_proc
        make_recipe = partial(recipe_for, resolved, choices, tokenizer, vocab_size, "data.train")
        train = stream(splits.train, make_recipe, processes=processes)
    else:
        train = side(splits.train, splits.sources[0], "data.train", places.get("data.train"))
    streamed = tuple(splits.sources[0].files or ()) if config.streaming else ()
    for text in chat_notes(tokenizer, train.shape):
        emit("note", text=text)
    if _OFTEN * train.ledger.truncated > train.ledger.kept:
        cut = f"{train.ledger.truncated} of {train.ledger.kept} rows are longer than data.max_seq_length"
        emit("warning", text=f"{cut} {config.max_seq_length} and lose their end")
    if splits.held_out is None:
        return Sides(train, None, streamed)
    held_out = side(splits.held_out, splits.sources[-1], "data.eval", places.get("data.eval"))
    if config.streaming:
        emit("note", text="rows that are streamed are not compared with those held out")
    elif shared := int(np.isin(held_out.digests, train.digests).sum()):
        count = len(held_out.digests)
        emit("warning", text=f"{shared} of {count} rows held out are also trained on, so their loss says less than it seems")
    return Sides(train, held_out, streamed)


def set_template(tokenizer: Any, resolved: Resolved) -> tuple[str, ...]:
    """Give a tokenizer the chat template that the config asks for, and say which one that is.

    Raises:
        ConfigError: there is none of that name.
        DatasetError: it cannot be used.
    """
    wanted = resolved.config.data.chat_template
    if wanted == "auto" and not isinstance(tokenizer.chat_template, dict):
        return ()
    chosen = choose_template(tokenizer, wanted, resolved.where("data.chat_template"))
    tokenizer.chat_template = chosen.template
    return (chosen.note,) if chosen.note else ()


def chat_notes(tokenizer: Any, shape: str) -> tuple[str, ...]:
    """Say how turns are written where that was not asked for; a tokenizer without a chat template keeps the plain one."""
    if shape == "messages" and not tokenizer.chat_template:
        chosen = choose_template(tokenizer, "auto", "")
        tokenizer.chat_template = chosen.template
        return (chosen.note,)
    if shape == "instruction":
        how = "as turns, by the chat template" if tokenizer.chat_template else "as plain text, for there is no chat template"
        return (f"instructions are written {how}",)
    return ()


def recipe_for(resolved: Resolved, choices: Choices, tokenizer: Any, vocab_size: int | None, side: str) -> Recipe:
    """Put together what a config says of one side, with steps made for one pass."""
    task = choices.task.registered.component
    assert isinstance(task, Task)
    return Recipe(
        config=resolved.config.data,
        steps=tuple(
            Step(each.registered, each.build(), sum(earlier.name == each.name for earlier in choices.preprocessors[:at]) + 1)
            for at, each in enumerate(choices.preprocessors)
        ),
        task=choices.task.build(),
        formats=task.formats,
        tokenizer=tokenizer,
        extra=choices.numbers(resolved.config.data.weight_field),
        seed=resolved.config.seed,
        vocab_size=vocab_size,
        side=side,
    )


def _depends_on(choices: Choices, recipe: Recipe, rows: str | None) -> dict[str, Any]:
    fields = attrs.asdict(recipe.config)
    # These say where the rows are and how the work is done, not what comes of it.
    for name in ("train", "preprocessors", "cache", "num_proc", "streaming", "max_row_loss"):
        del fields[name]
    if not isinstance(recipe.config.eval, float):
        del fields["eval"]
    return {
        "rows": rows,
        "fields": fields,
        "side": recipe.side,
        "steps": components_digest(_parts_of(choices.preprocessors)),
        "task": components_digest(_parts_of([choices.task])),
        "extra": recipe.extra,
        "tokenizer": tokenizer_digest(recipe.tokenizer),
        "seed": recipe.seed,
        "vocab_size": -1 if recipe.vocab_size is None else recipe.vocab_size,
    }


def _parts_of(components: Sequence[Chosen]) -> list[tuple[Any, Any]]:
    return [(each.registered, each.options) for each in components]


class _Progress:
    """Says how far a long preparation is, every few seconds."""

    def __init__(self, emit: Emit, side: str) -> None:
        self._emit, self._side = emit, side
        self._start = self._said = time.monotonic()

    def __call__(self, rows: int) -> None:
        now = time.monotonic()
        if now - self._said > _SECONDS_BETWEEN_REPORTS:
            self._said = now
            self._emit("preparing", side=self._side, rows=rows, rows_per_second=round(rows / (now - self._start)))
