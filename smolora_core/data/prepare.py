"""Prepare the splits of a run, from the cache where possible."""

import time
from collections.abc import Callable, Iterator, Mapping
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
    text_digest,
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

_MANY_TRUNCATED = 0.1
_SECONDS_BETWEEN_REPORTS = 2.0


@attrs.frozen
class PreparedSplits:
    """The training split, the held-out sets by config key, and the files of streamed training rows."""

    train: PreparedRows
    held_out: Mapping[str, PreparedRows]
    streamed: tuple[Path, ...] = ()

    @property
    def digests(self) -> dict[str, str | None]:
        """Digest the rows of each split, by config key."""
        train = sampled_digest(self.streamed) if self.streamed else sequences_digest(self.train.dataset)
        # The first of several sets decides which checkpoint is best, so their order counts too.
        order = text_digest(" ".join(self.held_out))
        rows = {key: sequences_digest(each.dataset) for key, each in self.held_out.items()}
        return {"data.train": train, "data.eval": order, **rows}

    def ledgers(self) -> dict[str, Any]:
        """Convert the ledger of each split to plain values: `train`, and `eval` or `eval.NAME`."""
        splits = {"data.train": self.train, **self.held_out}
        return {key.removeprefix("data."): each.ledger.as_dict() for key, each in splits.items()}


def prepare_splits(resolved: Resolved, choices: Choices, recipe: Recipe, rows: Any, emit: Emit) -> PreparedSplits:
    """Prepare every split; errors as for `prepare`.

    `rows` is a dataset in memory that replaces `data.train`. `emit` receives notes on guesses, progress and warnings.
    """
    config = resolved.config.data
    splits = open_splits(config, resolved.where, rows)
    for text in (*splits.notes(), *set_template(recipe.tokenizer, resolved)):
        emit("note", text=text)
    # Fingerprint all before preparing any: a stateful step may change while it runs.
    sources = {key: each for key, each in splits.sources.items() if not (config.streaming and key == "data.train")}
    places = dict(cache_places(sources, choices, recipe)) if config.cache else {}

    def prepared(key: str, read: Reader) -> PreparedRows:
        processes = processes_for(sources[key].size()) if config.num_proc == "auto" else config.num_proc
        split, progress = attrs.evolve(recipe, key=key), _Progress(emit, key)
        return prepare(read, split, place=places.get(key), processes=processes, progress=progress)

    if config.streaming:
        # Leave the CPU cores to training.
        train = stream(splits.train, recipe, processes=1 if config.num_proc == "auto" else config.num_proc)
    else:
        train = prepared("data.train", splits.train)
    streamed = tuple(splits.sources["data.train"].files or ()) if config.streaming else ()
    for text in chat_notes(recipe.tokenizer, train.shape):
        emit("note", text=text)
    if train.ledger.truncated > _MANY_TRUNCATED * train.ledger.kept:
        share = f"{train.ledger.truncated} of {train.ledger.kept} rows"
        emit("warning", text=f"{share} are truncated to data.max_seq_length {config.max_seq_length}")
    held_out = {key: prepared(key, read) for key, read in splits.held_out.items()}
    if held_out and config.streaming:
        emit("note", text="streamed rows are not checked for overlap with the held-out rows")
    for key, each in held_out.items() if not config.streaming else ():
        if shared := int(np.isin(each.digests, train.digests).sum()):
            share = f"{shared} of {len(each.digests)} rows of {key}"
            emit("warning", text=f"{share} are also training rows, so the evaluation loss is too optimistic")
    return PreparedSplits(train, held_out, streamed)


def recipe_for(resolved: Resolved, choices: Choices, tokenizer: Any, vocab_size: int | None) -> Recipe:
    """Make the recipe that a config describes; the same for every split and every pass."""

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
        extra=choices.numeric_columns(resolved.config.data.weight_field),
        seed=resolved.config.seed,
        vocab_size=vocab_size,
    )


def set_template(tokenizer: Any, resolved: Resolved) -> tuple[str, ...]:
    """Set the tokenizer's chat template to the one that the config requests; return notes, and raise as `choose_template`."""
    wanted = resolved.config.data.chat_template
    if wanted == "auto" and not isinstance(tokenizer.chat_template, dict):
        return ()
    chosen = choose_template(tokenizer, wanted, resolved.where("data.chat_template"))
    tokenizer.chat_template = chosen.template
    return (chosen.note,) if chosen.note else ()


def chat_notes(tokenizer: Any, shape: str) -> tuple[str, ...]:
    """Describe the format of chats and instructions; set the plain chat template if chats need one and there is none."""
    if shape == "messages" and not tokenizer.chat_template:
        chosen = choose_template(tokenizer, "auto", "")
        tokenizer.chat_template = chosen.template
        return (chosen.note,)
    if shape == "instruction":
        how = "with the chat template" if tokenizer.chat_template else "as plain text, as there is no chat template"
        return (f"instructions are formatted {how}",)
    return ()


def cache_places(sources: dict[str, Source], choices: Choices, recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Locate the cache entry of each split, by a fingerprint of everything that its prepared rows depend on."""
    fields = attrs.asdict(recipe.config)
    # These affect where rows come from and how the work is done, but not the result.
    for name in ("train", "preprocessors", "cache", "num_proc", "streaming", "max_row_loss"):
        del fields[name]
    if not isinstance(recipe.config.eval, float):
        del fields["eval"]
    shared: dict[str, Any] = {
        "fields": fields,
        "steps": components_digest(choices.preprocessors),
        "task": components_digest([choices.task]),
        "extra": recipe.extra,
        "tokenizer": tokenizer_digest(recipe.tokenizer),
        "seed": recipe.seed,
        "vocab_size": -1 if recipe.vocab_size is None else recipe.vocab_size,
    }
    digest = cache(source_digest)
    for key, source in sources.items():
        if found := fingerprint({**shared, "rows": digest(source), "split": key}):
            yield key, cache_folder() / found


class _Progress:
    """Reports the progress of a long preparation every few seconds."""

    def __init__(self, emit: Emit, key: str) -> None:
        self._emit, self._key = emit, key
        self._start = self._reported = time.monotonic()

    def __call__(self, rows: int) -> None:
        now = time.monotonic()
        if now - self._reported > _SECONDS_BETWEEN_REPORTS:
            self._reported = now
            self._emit("preparing", split=self._key, rows=rows, rows_per_second=round(rows / (now - self._start)))
