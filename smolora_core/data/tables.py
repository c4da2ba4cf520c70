"""Rows of CSV, TSV and Parquet files."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from smolora_core.data.encoding import open_text
from smolora_core.data.rows import Located, OnBad
from smolora_core.errors import DatasetError, Problem

__all__ = ["read_csv", "read_parquet", "read_tsv"]

_LONGEST_CELL = 1 << 26
_BATCH = 1024


def read_csv(path: Path, on_bad: OnBad) -> Iterator[Located]:
    """Yield the rows below a header, all values as text."""
    return _read_delimited(path, ",", on_bad)


def read_tsv(path: Path, on_bad: OnBad) -> Iterator[Located]:
    """Yield the rows below a header, all values as text."""
    return _read_delimited(path, "\t", on_bad)


def read_parquet(path: Path, on_bad: OnBad) -> Iterator[Located]:
    """Yield the rows of one batch after another."""
    from pyarrow.lib import ArrowException
    from pyarrow.parquet import ParquetFile

    name = path.as_posix()
    try:
        if path.stat().st_size == 0:
            return
        # Without pre_buffer the first row does not cost the whole first row group.
        with ParquetFile(path, pre_buffer=False) as file:  # type: ignore[no-untyped-call]
            _check_names(file.schema_arrow.names, name)
            rows = (row for batch in file.iter_batches(batch_size=_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield Located(row, f"{name}:row {number}")
    except (FileNotFoundError, PermissionError) as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=name) from None
    # Arrow's own errors of reading are OSErrors too, and a text column need not hold UTF-8.
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DatasetError(f"cannot be read as Parquet ({reason})", where=name) from error


def _read_delimited(path: Path, delimiter: str, on_bad: OnBad) -> Iterator[Located]:
    name = path.as_posix()
    with open_text(path, newline="") as lines:
        records = _records(lines, delimiter, name)
        line, header = next(records, (0, []))
        named = [index for index, column in enumerate(header) if column.strip()]
        unnamed = [index for index, column in enumerate(header) if not column.strip()]
        _check_names([header[index] for index in named], f"{name}:{line}")
        for line, cells in records:
            if len(cells) != len(header):
                on_bad(_ragged(len(cells), len(header), delimiter, f"{name}:{line}"))
            elif not unnamed:
                yield Located(dict(zip(header, cells, strict=True)), f"{name}:{line}")
            elif filled := [index + 1 for index in unnamed if cells[index].strip()]:
                on_bad(Problem(f"has a value in column {filled[0]}, which the header does not name", where=f"{name}:{line}"))
            else:
                yield Located({header[index]: cells[index] for index in named}, f"{name}:{line}")


def _records(lines: TextIO, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank and the line it starts on."""
    # The limit is csv's own global, and its default refuses a cell of 128 KiB. Some limit must stay: a quote that is never
    # closed makes one cell of the rest of the file.
    csv.field_size_limit(max(_LONGEST_CELL, csv.field_size_limit()))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        kind = "CSV" if delimiter == "," else "TSV"
        unclosed = "end of data" in str(error) or "field limit" in str(error)
        hint = "a quote opens there and is never closed" if unclosed else ""
        raise DatasetError(f"is not {kind} ({error})", where=f"{name}:{start}", hint=hint) from None


def _check_names(columns: Sequence[str], where: str) -> None:
    if twice := [column for column, times in Counter(columns).items() if times > 1]:
        raise DatasetError(f"names column {twice[0]!r} twice", where=where, hint="rename one of them")


def _ragged(cells: int, columns: int, delimiter: str, where: str) -> Problem:
    what = f"has {cells} value{'s' * (cells != 1)} for {columns} column{'s' * (columns != 1)}"
    return Problem(what, where=where, hint=f"put quotes around a value that holds {delimiter!r}" if cells > columns else "")
