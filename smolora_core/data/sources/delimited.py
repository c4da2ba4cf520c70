"""How a CSV file is made: what parts its columns, and whether its first record names them."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from functools import lru_cache
from io import StringIO
from itertools import islice
from pathlib import Path

import attrs

from smolora_core.data.sources.compression import stamp
from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem

_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_CELL = 1 << 26
_SAMPLE = 1 << 18
_SAMPLED = 20
_SHOWN = 5
_LONGEST_NAME = 200
_FEWEST_WORDS = 4
_is_number = re.compile(r"\s*[+-]?(\d+([.,]\d+)?|[.,]\d+)([eE][+-]?\d+)?%?\s*").fullmatch


@attrs.frozen
class Dialect:
    """What parts the columns, whether the first record names them, and what there is to say where that is a guess."""

    delimiter: str
    header: bool
    guesses: tuple[Problem, ...] = ()


def dialect_of(path: Path, reading: Reading, own: str) -> Dialect:
    """See from its first records how a file is made.

    Args:
        path: the file.
        reading: what the user says.
        own: the delimiter that goes with the file's extension; it wins where another one fits too.

    Raises:
        DatasetError: it cannot be read.
    """
    return _dialect_of(path, reading, own, stamp(path))


def column_names(first: Sequence[str], *, header: bool) -> list[str]:
    """Name the columns: as the first record does, and by their numbers where it does not."""
    return [cell if header and cell.strip() else f"column_{number}" for number, cell in enumerate(first, start=1)]


def records(lines: Iterable[str], delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank and the line it starts on.

    Raises:
        DatasetError: a quote is wrong.
    """
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
        kind = "TSV" if delimiter == "\t" else "CSV"
        unclosed = "end of data" in str(error) or "field limit" in str(error)
        hint = "a quote opens there and is never closed" if unclosed else ""
        raise DatasetError(f"is not {kind} ({error})", where=f"{name}:{start}", hint=hint) from error


@lru_cache(maxsize=4096)
def _dialect_of(path: Path, reading: Reading, own: str, _: tuple[int, ...]) -> Dialect:
    with open_text(path, reading.encoding, newline="") as file:
        text = file.read(_SAMPLE)
        whole = not file.read(1)
    given = (reading.delimiter,) if reading.delimiter != "auto" else (own, *(each for each in _DELIMITERS if each != own))
    samples = {delimiter: _sample(text, delimiter, whole=whole) for delimiter in given}
    fitting = [delimiter for delimiter in given if _fits(samples[delimiter])] or [given[0]]
    sample = samples[fitting[0]]
    header = _names_columns([cells for _, cells in sample], reading.fields) if reading.header == "auto" else reading.header
    line, first = sample[0] if sample else (0, [])
    name = path.as_posix()
    guesses = [
        *(_parted(fitting, own, name) if reading.delimiter == "auto" else ()),
        *(_unnamed(first, f"{name}:{line}") if header else ()),
        *(_headless(first, name) if not header and reading.header == "auto" else ()),
    ]
    return Dialect(fitting[0], header, tuple(guesses))


def _sample(text: str, delimiter: str, *, whole: bool) -> list[tuple[int, list[str]]]:
    """Take the first records, up to one that is not closed or is cut by the end of the sample."""
    found: list[tuple[int, list[str]]] = []
    with suppress(DatasetError):
        for record in islice(records(StringIO(text, newline=""), delimiter, ""), _SAMPLED):
            found.append(record)
        if not whole and len(found) < _SAMPLED:
            del found[-1:]
    return found


def _fits(sample: Sequence[tuple[int, Sequence[str]]]) -> bool:
    counts = {len(cells) for _, cells in sample}
    return len(counts) == 1 and counts != {1}


def _names_columns(sample: Sequence[Sequence[str]], fields: Set[str]) -> bool:
    """Whether the first record names columns; it does unless something speaks against that."""
    if not sample:
        return True
    first = [cell.strip() for cell in sample[0]]
    if not fields.isdisjoint(first):
        return True
    named = list(filter(None, first))
    if any(map(_is_number, named)):
        return False
    # Files that were put one behind the other repeat their header.
    below = [cells for cells in sample[1:] if len(cells) == len(first) and cells != sample[0]]
    columns = [[value for cells in below if (value := cells[index].strip())] for index in range(len(first))]
    if any(cell and values and all(map(_is_number, values)) for cell, values in zip(first, columns, strict=True)):
        return True
    repeats = any(cell in values for cell, values in zip(first, columns, strict=True) if cell)
    sentences = any(_is_sentence(cell) and _are_texts(values) for cell, values in zip(first, columns, strict=True))
    return not (repeats or sentences or len(set(named)) < len(named))


def _is_sentence(cell: str) -> bool:
    # A question, or a 'No.', is the name of a column in many files.
    return len(cell) > _LONGEST_NAME or (cell.endswith((".", "!")) and len(cell.split()) >= _FEWEST_WORDS)


def _are_texts(values: Sequence[str]) -> bool:
    return 2 * sum(len(value.split()) >= _FEWEST_WORDS for value in values) >= len(values)


def _parted(fitting: Sequence[str], own: str, where: str) -> Iterator[Problem]:
    if len(fitting) > 1:
        what = f"may be parted by {' or '.join(map(repr, fitting))}: read with {fitting[0]!r}"
    elif fitting[0] != own:
        what = f"is parted by {fitting[0]!r}"
    else:
        return
    yield Problem(what, where=where, hint="set data.delimiter if that is wrong")


def _headless(first: Sequence[str], where: str) -> Iterator[Problem]:
    columns = column_names(first, header=False)
    are = f"its columns are {_listed(columns)}" if len(columns) > 1 else f"its column is {columns[0]}"
    yield Problem(f"has no header: {are}", where=where, hint="set data.header if that is wrong")


def _unnamed(first: Sequence[str], where: str) -> Iterator[Problem]:
    numbers = [str(number) for number, cell in enumerate(first, start=1) if not cell.strip()]
    columns = _listed([f"column_{number}" for number in numbers])
    if len(numbers) == 1:
        yield Problem(f"does not name column {numbers[0]}: it is {columns}", where=where)
    elif numbers:
        yield Problem(f"does not name columns {_listed(numbers)}: they are {columns}", where=where)


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) if len(items) <= _SHOWN else f"{', '.join(items[:_SHOWN])} and {len(items) - _SHOWN} more"
