"""Rows of CSV, TSV and Parquet files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from smolora_core.data.sources.delimited import column_names, dialect_of, records
from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem

_BATCH = 1024


def read_delimited(path: Path, reading: Reading, on_bad: OnBad, *, own: str) -> Iterator[Located]:
    """Yield the rows below a header, or all where there is none, all values as text.

    A column that the header does not name is in the rows where it holds something.

    Args:
        path: the file.
        reading: what the user says about it.
        on_bad: is told of rows with more or fewer values than there are columns.
        own: the delimiter that goes with the file's extension.
    """
    name = path.as_posix()
    dialect = dialect_of(path, reading, own)
    with open_text(path, reading.encoding, newline="") as lines:
        found = records(lines, dialect.delimiter, name)
        if (first := next(found, None)) is None:
            return
        line, cells = first
        columns = column_names(cells, header=dialect.header)
        _check_names(columns, f"{name}:{line}")
        unnamed = [column for column, cell in zip(columns, cells, strict=True) if dialect.header and not cell.strip()]
        for line, cells in found if dialect.header else chain([first], found):
            if dialect.header and cells == first[1] and len(cells) > 1:
                on_bad(Problem("repeats the header", where=f"{name}:{line}", hint="remove the line, or drop bad rows"))
                continue
            if len(cells) != len(columns):
                on_bad(_ragged(len(cells), len(columns), dialect.delimiter, f"{name}:{line}"))
                continue
            row = dict(zip(columns, cells, strict=True))
            for column in unnamed:
                if not row[column].strip():
                    del row[column]
            yield Located(row, f"{name}:{line}")


def read_parquet(path: Path, _: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield the rows of one batch after another."""
    from pyarrow.lib import ArrowException
    from pyarrow.parquet import ParquetFile

    name = path.as_posix()
    try:
        if path.stat().st_size == 0:
            return
        # Without pre_buffer the first row does not cost the whole first row group.
        with ParquetFile(path, pre_buffer=False) as file:
            _check_names(file.schema_arrow.names, name)
            rows = (row for batch in file.iter_batches(batch_size=_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield Located(row, f"{name}:row {number}")
    except (FileNotFoundError, PermissionError) as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=name) from error
    # Arrow's own errors of reading are OSErrors too, and a text column need not hold UTF-8.
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DatasetError(f"cannot be read as Parquet ({reason})", where=name) from error


def _check_names(columns: Sequence[str], where: str) -> None:
    if twice := [column for column, times in Counter(columns).items() if times > 1]:
        raise DatasetError(f"names column {twice[0]!r} twice", where=where, hint="rename one of them")


def _ragged(cells: int, columns: int, delimiter: str, where: str) -> Problem:
    what = f"has {cells} value{'s' * (cells != 1)} for {columns} column{'s' * (columns != 1)}"
    return Problem(what, where=where, hint=f"put quotes around a value that holds {delimiter!r}" if cells > columns else "")


def read_conll(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield each sentence as `tokens`, from the first column, and `tags`, from the last.

    Columns are parted by tabs, on a line without a tab by spaces. `-DOCSTART-` lines and comments in front of a sentence
    are no part of it.
    """
    name = path.as_posix()
    width = 0
    with open_text(path, reading.encoding) as file:
        lines = enumerate(file, start=1)
        for blank, group in groupby(lines, key=lambda line: not line[1].strip() or line[1].startswith("-DOCSTART-")):
            if blank:
                continue
            sentence = [(number, _columns(line)) for number, line in group]
            # Comments only stand in front.
            width = width or len(sentence[-1][1])
            while sentence and sentence[0][1][0].startswith("#") and len(sentence[0][1]) != width:
                del sentence[0]
            odd = next(((number, len(columns)) for number, columns in sentence if len(columns) != width), None)
            if width == 1:
                on_bad(Problem("has a token and no tag", where=f"{name}:{sentence[0][0]}"))
                width = 0
            elif odd:
                what = f"has {odd[1]} column{'s' * (odd[1] > 1)} where other lines have {width}"
                on_bad(Problem(what, where=f"{name}:{odd[0]}"))
            elif sentence:
                row = {"tokens": [columns[0] for _, columns in sentence], "tags": [columns[-1] for _, columns in sentence]}
                yield Located(row, f"{name}:{sentence[0][0]}")


def _columns(line: str) -> list[str]:
    # A tab at the end is no column, one in front is.
    text = line.rstrip(" \t\n")
    return text.split("\t") if "\t" in text else [column for column in text.split(" ") if column]
