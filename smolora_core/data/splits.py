"""Split rows into those to train on and those to hold out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.config.dump import canonical_json
from smolora_core.data.sources import Source, open_source
from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError

_NOTES = 10

Reader = Callable[[OnBad | None], Iterator[Located]]
"""Reads the rows from the start at each call; skips bad ones if it is given a callback for them."""


@attrs.frozen
class Splits:
    """The splits of the data.

    Attributes:
        train: reads the rows to train on.
        held_out: reads the rows of each held-out set, by config key.
        sources: the source of each split, by config key.
    """

    train: Reader
    held_out: Mapping[str, Reader]
    sources: Mapping[str, Source]

    def notes(self) -> tuple[str, ...]:
        """Collect the notes of all sources without repeats; raise a DatasetError for an unreadable file."""
        notes = tuple(dict.fromkeys(note for source in self.sources.values() for note in source.notes()))
        more = len(notes) - _NOTES
        return (*notes[:_NOTES], f"and {more} more notes like these") if more > 0 else notes


def open_splits(config: DataConfig, where: Callable[[str], str] = lambda key: "", rows: Any = None) -> Splits:
    """Open the sources of a config; raise a DatasetError for one that does not exist or cannot be read.

    `where` locates a key in errors; `rows` is a dataset that replaces `data.train`.
    """
    reading = Reading.of(config)
    train = open_source(config.train if rows is None else rows, where("data.train"), reading)
    if isinstance(config.eval, float):
        kept, held_back = (_reader(train, config.eval, where("data.eval"), held_out=held_out) for held_out in (False, True))
        return Splits(kept, {"data.eval": held_back}, {"data.train": train, "data.eval": train})
    held_out = {key: open_source(spec, where(key), reading, held_out=True) for key, spec in config.eval_files.items()}
    return Splits(train.rows, {key: each.rows for key, each in held_out.items()}, {"data.train": train, **held_out})


def _reader(source: Source, fraction: float, where: str, *, held_out: bool) -> Reader:
    """Make the reader of one split; it raises a DatasetError if the split turns out empty."""

    def read(on_bad: OnBad | None) -> Iterator[Located]:
        seen, found = 0, False

        def counted(rows: Iterable[Located]) -> Iterator[Located]:
            nonlocal seen
            for seen, located in enumerate(rows, start=1):  # noqa: B007
                yield located

        # Both splits read the whole source; a bad row is counted once, in the training split.
        report = (lambda problem: None) if held_out and on_bad else on_bad
        for located, is_held_out in hold_out(counted(source.rows(report)), fraction, documents=source.documents):
            if is_held_out == held_out:
                found = True
                yield located
        if not found:
            rows = f"{seen} {'documents' if source.documents else 'rows'}"
            what = f"holds out none of {rows}" if held_out else f"leaves none of {rows} to train on"
            hint = "increase it, or add data" if held_out else "decrease it"
            raise DatasetError(f"data.eval {fraction} {what}", where=where, hint=hint)

    return read


def hold_out(rows: Iterable[Located], fraction: float, *, documents: bool) -> Iterator[tuple[Located, bool]]:
    """Yield each row and whether it is held out; cut each document in two, and hold out the second part.

    Rows are judged independently, so a small source may end up with none held out.
    """
    for located in rows:
        if not documents:
            yield located, is_held_out(located.row, fraction)
            continue
        for part, held_out in zip(cut_document(located, fraction), (False, True), strict=True):
            if part.row["text"]:
                yield part, held_out


def is_held_out(row: Mapping[str, Any], fraction: float) -> bool:
    """Whether a row falls into the held-out fraction.

    Only its content decides: equal rows share a split, and a held-out row stays held out when the fraction grows, or when other
    rows come or go.

    Example:
        >>> is_held_out({"text": "fine", "stars": 4}, 0.5) == is_held_out({"stars": 4, "text": "fine"}, 0.5)
        True
    """
    digest = blake2b(canonical_json(row, default=str).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2.0**64


def cut_document(located: Located, fraction: float) -> tuple[Located, Located]:
    """Cut the last `fraction` of characters off a document, at a line break if one is near; locate it by its first line."""
    text: str = located.row["text"]
    cut = len(text) - round(len(text) * fraction)
    # A break in the first half, such as the one after a title, would hold out nearly everything.
    if (line_break := text.rfind("\n", cut // 2, cut)) >= 0:
        cut = line_break + 1
    head = attrs.evolve(located, row={**located.row, "text": text[:cut]})
    line = text.count("\n", 0, cut) + 1
    return head, Located({**located.row, "text": text[cut:]}, f"{located.where}:{line}")
