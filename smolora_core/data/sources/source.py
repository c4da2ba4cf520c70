"""Open a source of rows: files, a dataset on the hub, or an object in memory.

    source = open_source("reviews/*.jsonl", where="run.yaml:3")
    for located in source.rows():
        print(located.where, located.row["text"])

Opening finds the files; `rows` reads them lazily, and again at each call.
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
from smolora_core.data.sources.located import Located, OnBad, row_problem
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
    """Rows that can be read any number of times.

    Attributes:
        name: the source as the user wrote it.
        files: the files; empty for the hub and for memory.
        kind: the kind of the files, `hub` or `memory`.
        held: the rows in memory, or the hub id.
        reading: the settings for reading the files.
        skipped: notes on files that were skipped.

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
    skipped: tuple[str, ...] = ()

    @property
    def documents(self) -> bool:
        """Whether each row is the whole text of a file."""
        return self.kind == "text"

    def rows(self, on_bad: OnBad | None = None) -> Iterator[Located]:
        """Read the rows lazily, from the start.

        Args:
            on_bad: called for each bad row that can be skipped; without it, the first one raises.

        Raises:
            DatasetError: the rest of a file cannot be read, or there are no rows at all.
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
        """Read the first row's column names; raise a DatasetError if there is no first row."""
        return tuple(next(self.rows(on_bad)).row)

    def notes(self) -> tuple[str, ...]:
        """Describe the guesses made about the files, and the files that were skipped.

        This scans up to 64 MiB of each file; the results are cached for reading. Raises a DatasetError for an unreadable file.
        """
        if self.kind == "parquet":
            return self.skipped
        return (*self.skipped, *(str(note) for file in self.files for note in self._guesses(file)))

    def size(self) -> int | None:
        """Estimate the bytes to read; None for the hub, and for rows in memory without a length.

        A compressed file counts four times its size on disk; rows in memory are taken to be as long as the first 20.
        Raises a DatasetError for a missing file.
        """
        if self.files:
            return sum(map(size_of, self.files))
        if not hasattr(self.held, "__len__"):
            return None
        first = [len(str(row)) for row in islice(self.held, _PEEKED)]
        return len(self.held) * sum(first) // max(len(first), 1)

    def _guesses(self, file: Path) -> Iterator[Problem]:
        if note := encoding_of(file, self.reading.encoding).note:
            yield note
        if own := _DELIMITERS.get(self.kind):
            yield from dialect_of(file, self.reading, own).notes

    def _read(self, on_bad: OnBad) -> Iterator[Located]:
        if self.kind == "memory":
            return _number(self.held, self.name, on_bad)
        if self.kind == "hub":
            return _number(self.held.rows(streaming=self.reading.streaming), self.name, on_bad)
        return chain.from_iterable(_READERS[self.kind](file, self.reading, on_bad) for file in self.files)


def open_source(spec: Any, where: str = "", reading: Reading = _AUTO, *, held_out: bool = False) -> Source:
    """Resolve a source without reading it.

    Args:
        spec: a file, a glob, a folder or a list of them, a hub id, a `datasets` dataset, or a list of dicts.
        where: the place in the config, such as `run.yaml:3`, for errors.
        reading: the settings for reading its files.
        held_out: whether it is the evaluation split; it decides between `train.jsonl` and `test.jsonl` in the same folder.

    Raises:
        DatasetError: there is nothing to read.
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
        raise DatasetError(f"a {type(spec).__name__} has several splits", where=where, hint=f"pass one of: {', '.join(spec)}")
    if isinstance(spec, list | tuple) or hasattr(spec, "column_names"):
        return Source("dataset", (), "memory", spec)
    known = "a file, a folder, a list of files, a hub id, a datasets.Dataset or a list of dicts"
    raise DatasetError(f"cannot read rows from a {type(spec).__name__}", where=where, hint=f"pass {known}")


def peek(source: Source, count: int = _PEEKED, on_bad: OnBad | None = None) -> list[Located]:
    """Read only the first rows; errors as for `Source.rows`."""
    return list(islice(source.rows(on_bad), count))


def _number(rows: Iterable[Any], name: str, on_bad: OnBad) -> Iterator[Located]:
    for number, row in enumerate(rows, start=1):
        where = f"{name}:row {number}"
        if isinstance(row, Mapping):
            yield Located(dict(row), where)
        else:
            on_bad(Problem(row_problem(row), where=where))
