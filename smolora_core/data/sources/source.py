"""Where rows come from: files, a dataset on the hub, or an object in memory.

    source = open_source("reviews/*.jsonl", where="run.yaml:3")
    for located in source.rows():
        print(located.where, located.row["text"])

Opening finds the files; reading happens row by row, and as often as asked for.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import attrs

from smolora_core.data.sources.compression import size_of
from smolora_core.data.sources.delimited import dialect_of
from smolora_core.data.sources.encoding import encoding_of, open_text
from smolora_core.data.sources.files import FileKind, find_files, kind_of
from smolora_core.data.sources.hub import HubId
from smolora_core.data.sources.json_files import read_json, read_jsonl
from smolora_core.data.sources.located import Located, OnBad, flaw
from smolora_core.data.sources.reading import Reading
from smolora_core.data.sources.tables import read_conll, read_delimited, read_parquet
from smolora_core.errors import DatasetError, Problem

Kind = Literal[FileKind, "hub", "memory"]

_AUTO = Reading()
_PEEKED = 20


def _read_document(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    with open_text(path, reading.encoding) as file:
        text = file.read()
    if text:
        yield Located({"text": text}, path.as_posix())


_DELIMITERS = {"csv": ",", "tsv": "\t"}
_READERS: Mapping[str, Callable[[Path, Reading, OnBad], Iterator[Located]]] = {
    "conll": read_conll,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "text": _read_document,
    **{kind: partial(read_delimited, own=delimiter) for kind, delimiter in _DELIMITERS.items()},
}


@attrs.frozen
class Source:
    """Rows that can be read again and again.

    Attributes:
        name: as the user wrote it.
        files: what it is read from; none for the hub and for memory.
        kind: how it is read.
        held: the object that holds the rows in memory, or the id on the hub.
        reading: how the files are to be read.
        left_out: what there is to say of files that were not taken.

    Example:
        >>> source = open_source([{"text": "fine"}, {"text": "bad"}])
        >>> [located.where for located in source.rows()]
        ['dataset:row 1', 'dataset:row 2']
    """

    name: str
    files: tuple[Path, ...]
    kind: Kind
    held: Any = attrs.field(default=None, repr=False, eq=id)
    reading: Reading = _AUTO
    left_out: tuple[str, ...] = ()

    @property
    def documents(self) -> bool:
        """Whether a row is the whole text of a file."""
        return self.kind == "text"

    def rows(self, on_bad: OnBad | None = None) -> Iterator[Located]:
        """Read from the start, a piece at a time.

        Args:
            on_bad: is told of each row that cannot be used but can be stepped over; without it the first such row raises.

        Raises:
            DatasetError: a file cannot be read on, or there was no row at all.
        """
        skipped = False

        def skip(problem: Problem) -> None:
            nonlocal skipped
            skipped = True
            if on_bad is None:
                raise DatasetError.of([problem])
            on_bad(problem)

        rows = self._read(skip)
        first = next(rows, None)
        if first is None:
            raise DatasetError("has no usable rows" if skipped else "has no rows", where=self.name)
        yield first
        yield from rows

    def columns(self, on_bad: OnBad | None = None) -> tuple[str, ...]:
        """Name the columns of the first row, reading no further.

        Raises:
            DatasetError: the first row cannot be read, or there is none.
        """
        return tuple(next(self.rows(on_bad)).row)

    def notes(self) -> tuple[str, ...]:
        """Say what was guessed about the files, and which were left out; nothing where nothing was.

        It looks at the first 64 MiB of every file at most, and reading does not look again.

        Raises:
            DatasetError: a file cannot be read.
        """
        if self.kind == "parquet":
            return self.left_out
        return (*self.left_out, *(str(guess) for file in self.files for guess in self._guesses(file)))

    def size(self) -> int | None:
        """Estimate how many bytes there are to read; None for the hub, and for what does not know its length.

        A compressed file counts four times what it takes on disk; rows in memory are taken to be as long as the first 20.

        Raises:
            DatasetError: a file is not there any more.
        """
        if self.files:
            return sum(map(size_of, self.files))
        if not hasattr(self.held, "__len__"):
            return None
        first = [len(str(row)) for row in islice(self.held, _PEEKED)]
        return len(self.held) * sum(first) // max(len(first), 1)

    def _guesses(self, file: Path) -> Iterator[Problem]:
        if guess := encoding_of(file, self.reading.encoding).guess:
            yield guess
        if own := _DELIMITERS.get(self.kind):
            yield from dialect_of(file, self.reading, own).guesses

    def _read(self, on_bad: OnBad) -> Iterator[Located]:
        if self.kind == "memory":
            return _number(self.held, self.name, on_bad)
        if self.kind == "hub":
            return _number(self.held.rows(streaming=self.reading.streaming), self.name, on_bad)
        return chain.from_iterable(_READERS[self.kind](file, self.reading, on_bad) for file in self.files)


def open_source(spec: Any, where: str = "", reading: Reading = _AUTO, *, held_out: bool = False) -> Source:
    """Find out what the user means by a source, without reading it.

    Args:
        spec: a file, a glob, a folder or a list of them, a hub id, a `datasets` dataset, or a list of dicts.
        where: where the user wrote it, `run.yaml:3` say, for errors.
        reading: how its files are to be read.
        held_out: whether it is there to be evaluated on: of a folder that holds `train.jsonl` and `test.jsonl`, the one or the
            other is read.

    Raises:
        DatasetError: it stands for nothing that can be read.
    """
    reading.check()
    if isinstance(spec, str) and (hub_id := HubId.parse(spec)):
        return Source(spec, (), "hub", hub_id, reading)
    single = isinstance(spec, str | os.PathLike)
    if single or (isinstance(spec, list | tuple) and all(isinstance(item, str | os.PathLike) for item in spec)):
        names = [os.fspath(item) for item in ([spec] if single else spec)]
        found = find_files(names, where, held_out=held_out)
        return Source(", ".join(names), found.files, reading.kind or kind_of(found.files, where), None, reading, found.notes)
    if isinstance(spec, Mapping) and spec and all(hasattr(split, "column_names") for split in spec.values()):
        raise DatasetError(f"a {type(spec).__name__} has several splits", where=where, hint=f"give one of: {', '.join(spec)}")
    if isinstance(spec, list | tuple) or hasattr(spec, "column_names"):
        return Source("dataset", (), "memory", spec)
    known = "a file, a folder, a list of files, a hub id, a datasets.Dataset or a list of dicts"
    raise DatasetError(f"rows cannot be read from a {type(spec).__name__}", where=where, hint=f"give {known}")


def peek(source: Source, count: int = _PEEKED, on_bad: OnBad | None = None) -> list[Located]:
    """Read the first rows and no more than that takes.

    Raises:
        DatasetError: as for `Source.rows`.
    """
    return list(islice(source.rows(on_bad), count))


def _number(rows: Iterable[Any], name: str, on_bad: OnBad) -> Iterator[Located]:
    for number, row in enumerate(rows, start=1):
        where = f"{name}:row {number}"
        if isinstance(row, Mapping):
            yield Located(dict(row), where)
        else:
            on_bad(Problem(flaw(row), where=where))
