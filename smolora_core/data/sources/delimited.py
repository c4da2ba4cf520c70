"""The dialect of a CSV file: its delimiter, and whether it starts with a header row."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from functools import lru_cache
from io import StringIO
from itertools import islice
from pathlib import Path

import attrs

from smolora_core.data.sources.compression import file_state
from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem

_DELIMITERS = (",", ";", "\t", "|")
_MAX_CELL = 1 << 26
_SAMPLE_CHARACTERS = 1 << 18
_SAMPLE_RECORDS = 20
_SHOWN = 5
_MAX_NAME = 200
_SENTENCE_WORDS = 4
_is_number = re.compile(r"\s*[+-]?(\d+([.,]\d+)?|[.,]\d+)([eE][+-]?\d+)?%?\s*").fullmatch


@attrs.frozen
class Dialect:
    """A delimiter, whether there is a header row, and a note on each of the two that is a guess."""

    delimiter: str
    header: bool
    notes: tuple[Problem, ...] = ()


def dialect_of(path: Path, reading: Reading, own: str) -> Dialect:
    """Detect the dialect of a file from its first records, where the config leaves it open.

    `own` is the delimiter that the extension implies; it wins where another one fits too. Raises a DatasetError for a file
    that cannot be read.
    """
    return _dialect_of(path, reading, own, file_state(path))


def column_names(first: Sequence[str], *, header: bool) -> list[str]:
    """Name the columns after the header row's cells, and by number where there is none."""
    return [cell if header and cell.strip() else f"column_{number}" for number, cell in enumerate(first, start=1)]


def records(lines: Iterable[str], delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the line it starts on; raise a DatasetError for a misplaced quote."""
    # csv's limit is global, and its default rejects cells of 128 KiB. Some limit must stay: a quote that is never closed
    # turns the rest of the file into one cell.
    csv.field_size_limit(max(_MAX_CELL, csv.field_size_limit()))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        kind = "TSV" if delimiter == "\t" else "CSV"
        unclosed = "end of data" in str(error) or "field limit" in str(error)
        hint = "a quote opened there is never closed" if unclosed else ""
        raise DatasetError(f"is not {kind} ({error})", where=f"{name}:{start}", hint=hint) from error


@lru_cache(maxsize=4096)
def _dialect_of(path: Path, reading: Reading, own: str, _: tuple[int, ...]) -> Dialect:
    with open_text(path, reading.encoding, newline="") as file:
        text = file.read(_SAMPLE_CHARACTERS)
        complete = not file.read(1)
    given = (reading.delimiter,) if reading.delimiter != "auto" else (own, *(each for each in _DELIMITERS if each != own))
    samples = {delimiter: _sample(text, delimiter, complete=complete) for delimiter in given}
    fitting = [delimiter for delimiter in given if _fits(samples[delimiter])] or [given[0]]
    sample = samples[fitting[0]]
    header = _is_header([cells for _, cells in sample], reading.fields) if reading.header == "auto" else reading.header
    line, first = sample[0] if sample else (0, [])
    name = path.as_posix()
    notes = [
        *(_delimiter_note(fitting, own, name) if reading.delimiter == "auto" else ()),
        *(_unnamed_note(first, f"{name}:{line}") if header else ()),
        *(_no_header_note(first, name) if not header and reading.header == "auto" else ()),
    ]
    return Dialect(fitting[0], header, tuple(notes))


def _sample(text: str, delimiter: str, *, complete: bool) -> list[tuple[int, list[str]]]:
    """Take the first records, up to one with an unclosed quote or one that the end of the sample cuts off."""
    found: list[tuple[int, list[str]]] = []
    with suppress(DatasetError):
        for record in islice(records(StringIO(text, newline=""), delimiter, ""), _SAMPLE_RECORDS):
            found.append(record)
        if not complete and len(found) < _SAMPLE_RECORDS:
            del found[-1:]
    return found


def _fits(sample: Sequence[tuple[int, Sequence[str]]]) -> bool:
    counts = {len(cells) for _, cells in sample}
    return len(counts) == 1 and counts != {1}


def _is_header(sample: Sequence[Sequence[str]], fields: Set[str]) -> bool:
    """Whether the first record is a header row; it is unless there is evidence against it."""
    if not sample:
        return True
    first = [cell.strip() for cell in sample[0]]
    if not fields.isdisjoint(first):
        return True
    named = list(filter(None, first))
    if any(map(_is_number, named)):
        return False
    # Concatenated files repeat their header row.
    below = [cells for cells in sample[1:] if len(cells) == len(first) and cells != sample[0]]
    columns = [[value for cells in below if (value := cells[index].strip())] for index in range(len(first))]
    if any(cell and values and all(map(_is_number, values)) for cell, values in zip(first, columns, strict=True)):
        return True
    repeats = any(cell in values for cell, values in zip(first, columns, strict=True) if cell)
    sentences = any(_is_sentence(cell) and _mostly_prose(values) for cell, values in zip(first, columns, strict=True))
    return not (repeats or sentences or len(set(named)) < len(named))


def _is_sentence(cell: str) -> bool:
    # Many files have a question, or a 'No.', as the name of a column.
    return len(cell) > _MAX_NAME or (cell.endswith((".", "!")) and len(cell.split()) >= _SENTENCE_WORDS)


def _mostly_prose(values: Sequence[str]) -> bool:
    return 2 * sum(len(value.split()) >= _SENTENCE_WORDS for value in values) >= len(values)


def _delimiter_note(fitting: Sequence[str], own: str, where: str) -> Iterator[Problem]:
    hint = "set data.delimiter if that is wrong"
    if len(fitting) > 1:
        what = f"could be delimited by {' or '.join(map(repr, fitting))}, using {fitting[0]!r}"
        yield Problem(what, where=where, hint=hint)
    elif fitting[0] != own:
        yield Problem(f"is delimited by {fitting[0]!r}", where=where, hint=hint)


def _no_header_note(first: Sequence[str], where: str) -> Iterator[Problem]:
    names = _listed(column_names(first, header=False))
    yield Problem(f"has no header row, calling its columns {names}", where=where, hint="set data.header if that is wrong")


def _unnamed_note(first: Sequence[str], where: str) -> Iterator[Problem]:
    if names := [f"column_{number}" for number, cell in enumerate(first, start=1) if not cell.strip()]:
        yield Problem(f"has unnamed columns, calling them {_listed(names)}", where=where)


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) if len(items) <= _SHOWN else f"{', '.join(items[:_SHOWN])} and {len(items) - _SHOWN} more"
