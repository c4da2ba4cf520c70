"""Read CSV, TSV, Parquet and CoNLL files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path

from smolora_core.data.sources.delimited import column_names, dialect_of, records
from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem, first_line

_BATCH = 1024


def read_delimited(path: Path, reading: Reading, on_bad: OnBad, *, own: str) -> Iterator[Located]:
    """Yield the rows below the header row, or all rows if there is none, with all values as text.

    An unnamed column is left out of the rows in which it is blank. `own` is the delimiter that the file's extension implies.
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
                hint = "remove the line, or set data.on_bad_row to drop"
                on_bad(Problem("repeats the header row", where=f"{name}:{line}", hint=hint))
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
    """Yield the rows, batch by batch."""
    from pyarrow.lib import ArrowException
    from pyarrow.parquet import ParquetFile

    name = path.as_posix()
    try:
        if path.stat().st_size == 0:
            return
        # With pre_buffer the first row would cost the whole first row group.
        with ParquetFile(path, pre_buffer=False) as file:
            _check_names(file.schema_arrow.names, name)
            rows = (row for batch in file.iter_batches(batch_size=_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, start=1):
                yield Located(row, f"{name}:row {number}")
    except (FileNotFoundError, PermissionError) as error:
        raise DatasetError(f"cannot be read ({error.strerror})", where=name) from error
    # Arrow raises OSErrors of its own, and text columns are not always UTF-8.
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read as Parquet ({first_line(error)})", where=name) from error


def _check_names(columns: Sequence[str], where: str) -> None:
    if duplicates := [column for column, times in Counter(columns).items() if times > 1]:
        raise DatasetError(f"has two columns named {duplicates[0]!r}", where=where, hint="rename one of them")


def _ragged(cells: int, columns: int, delimiter: str, where: str) -> Problem:
    what = f"has {cells} value{'s' * (cells != 1)} for {columns} column{'s' * (columns != 1)}"
    return Problem(what, where=where, hint=f"quote values that contain {delimiter!r}" if cells > columns else "")


def read_conll(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield each sentence as `tokens`, from the first column, and `tags`, from the last.

    Columns are delimited by tabs, or by spaces on lines without a tab. `-DOCSTART-` lines, and comments before a sentence, are
    skipped.
    """
    name = path.as_posix()
    width = 0
    with open_text(path, reading.encoding) as file:
        lines = enumerate(file, start=1)
        for blank, group in groupby(lines, key=lambda line: not line[1].strip() or line[1].startswith("-DOCSTART-")):
            if blank:
                continue
            sentence = [(number, _columns(line)) for number, line in group]
            # Comments come first, so the last line shows the width.
            width = width or len(sentence[-1][1])
            while sentence and sentence[0][1][0].startswith("#") and len(sentence[0][1]) != width:
                del sentence[0]
            ragged = next(((number, len(columns)) for number, columns in sentence if len(columns) != width), None)
            if width == 1:
                on_bad(Problem("has a token but no tag", where=f"{name}:{sentence[0][0]}"))
                width = 0
            elif ragged:
                what = f"has {ragged[1]} column{'s' * (ragged[1] > 1)} where other lines have {width}"
                on_bad(Problem(what, where=f"{name}:{ragged[0]}"))
            elif sentence:
                row = {"tokens": [columns[0] for _, columns in sentence], "tags": [columns[-1] for _, columns in sentence]}
                yield Located(row, f"{name}:{sentence[0][0]}")


def _columns(line: str) -> list[str]:
    # A trailing tab does not add a column; a leading tab does.
    text = line.rstrip(" \t\n")
    return text.split("\t") if "\t" in text else [column for column in text.split(" ") if column]
