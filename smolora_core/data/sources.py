"""Where rows come from: files, a dataset on the hub, or an object in memory.

    source = open_source("reviews/*.jsonl", where="run.yaml:3")
    for located in source.rows():
        print(located.where, located.row["text"])

Opening finds the files; reading happens row by row, and as often as asked for.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import attrs

from smolora_core.data.encoding import open_text
from smolora_core.data.files import FileKind, find_files, is_hub_id, kind_of, near_name
from smolora_core.data.json_files import read_json, read_jsonl
from smolora_core.data.rows import Located, OnBad, flaw
from smolora_core.data.tables import read_csv, read_parquet, read_tsv
from smolora_core.errors import DatasetError, Problem

__all__ = ["Kind", "Located", "OnBad", "Source", "open_source", "peek"]

Kind = Literal[FileKind, "hub", "memory"]


def _read_document(path: Path, on_bad: OnBad) -> Iterator[Located]:
    with open_text(path) as file:
        text = file.read()
    if text:
        yield Located({"text": text}, path.as_posix())


_READERS: Mapping[str, Callable[[Path, OnBad], Iterator[Located]]] = {
    "csv": read_csv,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "text": _read_document,
    "tsv": read_tsv,
}


@attrs.frozen
class Source:
    """Rows that can be read again and again.

    Attributes:
        name: as the user wrote it.
        files: what it is read from; none for the hub and for memory.
        kind: how it is read.
        held: the object that holds the rows in memory.

    Example:
        >>> source = open_source([{"text": "fine"}, {"text": "bad"}])
        >>> [located.where for located in source.rows()]
        ['dataset:row 1', 'dataset:row 2']
    """

    name: str
    files: tuple[Path, ...]
    kind: Kind
    held: Any = attrs.field(default=None, repr=False, eq=id)

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

    def _read(self, on_bad: OnBad) -> Iterator[Located]:
        if self.kind == "memory":
            return _number(self.held, self.name, on_bad)
        if self.kind == "hub":
            return _number(_load_from_hub(self.name), self.name, on_bad)
        return chain.from_iterable(_READERS[self.kind](file, on_bad) for file in self.files)


def open_source(spec: Any, where: str = "") -> Source:
    """Find out what the user means by a source, without reading it.

    Args:
        spec: a file, a glob, a folder or a list of them, a hub id, a `datasets` dataset, or a list of dicts.
        where: where the user wrote it, `run.yaml:3` say, for errors.

    Raises:
        DatasetError: it stands for nothing that can be read.
    """
    if isinstance(spec, str | os.PathLike):
        name = os.fspath(spec)
        if isinstance(spec, str) and is_hub_id(spec):
            return Source(name, (), "hub")
        files = find_files([name], where)
        return Source(name, files, kind_of(files, where))
    if isinstance(spec, list | tuple) and all(isinstance(item, str | os.PathLike) for item in spec):
        files = find_files([os.fspath(item) for item in spec], where)
        return Source(", ".join(os.fspath(item) for item in spec), files, kind_of(files, where))
    if isinstance(spec, Mapping) and spec and all(hasattr(split, "column_names") for split in spec.values()):
        raise DatasetError(f"a {type(spec).__name__} has several splits", where=where, hint=f"give one of: {', '.join(spec)}")
    if isinstance(spec, list | tuple) or hasattr(spec, "column_names"):
        return Source("dataset", (), "memory", spec)
    known = "a file, a folder, a list of files, a hub id, a datasets.Dataset or a list of dicts"
    raise DatasetError(f"rows cannot be read from a {type(spec).__name__}", where=where, hint=f"give {known}")


def peek(source: Source, count: int = 20, on_bad: OnBad | None = None) -> list[Located]:
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


def _load_from_hub(name: str) -> Iterable[Any]:
    from datasets.load import load_dataset

    try:
        return load_dataset(name, split="train")
    except Exception as error:  # loading fails in many ways that share no base class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DatasetError(f"cannot be loaded from the hub ({reason})", where=name, hint=near_name(name)) from error
