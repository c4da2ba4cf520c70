"""Sentences of token-per-line files: a token and its tag on each line, an empty line between sentences."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.reading import Reading
from smolora_core.data.sources.rows import Located, OnBad
from smolora_core.errors import Problem


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
