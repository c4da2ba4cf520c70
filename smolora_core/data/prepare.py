"""Prepare the rows of a run: those to train on and those held out, from the cache where it has them."""

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from smolora_core.config import Resolved
from smolora_core.data.cache import cache_folder
from smolora_core.data.chat.templates import choose_template
from smolora_core.data.fingerprint import (
    components_digest,
    fingerprint,
    sampled_digest,
    sequences_digest,
    source_digest,
    surroundings,
    tokenizer_digest,
)
from smolora_core.data.pipeline import PreparedRows, Recipe, prepare
from smolora_core.data.preprocess import Step
from smolora_core.data.sources import Source
from smolora_core.data.splits import Reader, open_splits
from smolora_core.data.stream import stream
from smolora_core.data.workers import processes_for
from smolora_core.plugins.selection import Choices

Emit = Callable[..., None]

_OFTEN = 10
_SECONDS_BETWEEN_REPORTS = 2.0


@attrs.frozen
class PreparedSplits:
    """The rows to train on, and those to evaluate on.

    Attributes:
        train: the rows to train on.
        held_out: the rows to evaluate on, or None.
        streamed: the files of rows that are prepared while training.
    """

    train: PreparedRows
    held_out: PreparedRows | None
    streamed: tuple[Path, ...] = ()

    @property
    def digests(self) -> dict[str, str | None]:
        """Digest what is trained and evaluated on, by config key."""
        train = sampled_digest(self.streamed) if self.streamed else sequences_digest(self.train.dataset)
        return {"data.train": train, "data.eval": sequences_digest(self.held_out.dataset) if self.held_out else None}

    def ledgers(self) -> dict[str, Any]:
        """The account of each split, as plain values."""
        return {"train": self.train.ledger.as_dict(), **({"eval": self.held_out.ledger.as_dict()} if self.held_out else {})}


def prepare_splits(resolved: Resolved, choices: Choices, recipe: Recipe, rows: Any, emit: Emit) -> PreparedSplits:
    """Prepare the rows to train on and those to evaluate on.

    Args:
        resolved: the config and where its values stand.
        choices: task, loss and preprocessors.
        recipe: as `recipe_for` makes it.
        rows: a dataset in memory, in place of `data.train`.
        emit: receives notes on what was guessed, progress, and warnings.

    Raises:
        DatasetError: as `prepare`.
    """
    config, held_out_recipe = resolved.config.data, attrs.evolve(recipe, side="data.eval")
    splits = open_splits(config, resolved.where("data.train"), resolved.where("data.eval"), rows)
    for text in (*splits.notes(), *set_template(recipe.tokenizer, resolved)):
        emit("note", text=text)
    # Named before either is prepared: a step may change what it holds on to.
    sources = {"data.train": splits.sources[0]} if not config.streaming else {}
    if splits.held_out is not None:
        sources["data.eval"] = splits.sources[-1]
    places = dict(_places(sources, choices, recipe)) if config.cache else {}

    def prepared(read: Reader, recipe: Recipe) -> PreparedRows:
        processes = processes_for(sources[recipe.side].size()) if config.num_proc == "auto" else config.num_proc
        place = places.get(recipe.side)
        return prepare(read, recipe, place=place, processes=processes, progress=_Progress(emit, recipe.side))

    if config.streaming:
        # Training needs the processors more than the rows do.
        train = stream(splits.train, recipe, processes=1 if config.num_proc == "auto" else config.num_proc)
    else:
        train = prepared(splits.train, recipe)
    streamed = tuple(splits.sources[0].files or ()) if config.streaming else ()
    for text in chat_notes(recipe.tokenizer, train.shape):
        emit("note", text=text)
    if _OFTEN * train.ledger.truncated > train.ledger.kept:
        cut = f"{train.ledger.truncated} of {train.ledger.kept} rows are longer than data.max_seq_length"
        emit("warning", text=f"{cut} {config.max_seq_length} and lose their end")
    if splits.held_out is None:
        return PreparedSplits(train, None, streamed)
    held_out = prepared(splits.held_out, held_out_recipe)
    if config.streaming:
        emit("note", text="rows that are streamed are not compared with those held out")
    elif shared := int(np.isin(held_out.digests, train.digests).sum()):
        count = len(held_out.digests)
        emit("warning", text=f"{shared} of {count} rows held out are also trained on, so their loss says less than it seems")
    return PreparedSplits(train, held_out, streamed)


def recipe_for(resolved: Resolved, choices: Choices, tokenizer: Any, vocab_size: int | None) -> Recipe:
    """Put together what a config says of the rows; the same for every split and every pass."""

    def make_steps() -> tuple[Step, ...]:
        chosen = choices.preprocessors
        numbers = (sum(earlier.name == each.name for earlier in chosen[:at]) + 1 for at, each in enumerate(chosen))
        return tuple(Step(each.registered, each.build(), number) for each, number in zip(chosen, numbers, strict=True))

    return Recipe(
        config=resolved.config.data,
        make_steps=make_steps,
        task=choices.task.build(),
        formats=choices.task.component.formats,
        tokenizer=tokenizer,
        extra=choices.numbers(resolved.config.data.weight_field),
        seed=resolved.config.seed,
        vocab_size=vocab_size,
    )


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


def _places(sources: dict[str, Source], choices: Choices, recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Name the place in the cache of each split, by all that its prepared rows depend on."""
    fields = attrs.asdict(recipe.config)
    # These say where the rows are and how the work is done, not what comes of it.
    for name in ("train", "preprocessors", "cache", "num_proc", "streaming", "max_row_loss"):
        del fields[name]
    if not isinstance(recipe.config.eval, float):
        del fields["eval"]
    same: dict[str, Any] = {
        "fields": fields,
        "steps": components_digest(choices.preprocessors),
        "task": components_digest([choices.task]),
        "extra": recipe.extra,
        "tokenizer": tokenizer_digest(recipe.tokenizer),
        "seed": recipe.seed,
        "vocab_size": -1 if recipe.vocab_size is None else recipe.vocab_size,
        **surroundings(),
    }
    digest = cache(source_digest)
    for side, source in sources.items():
        if found := fingerprint({**same, "rows": digest(source), "side": side}):
            yield side, cache_folder() / found


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
