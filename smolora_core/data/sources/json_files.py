"""Rows of JSON lines, and of a JSON list that need not fit in memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.located import Located, OnBad, flaw, noun
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem

_CHUNK = 1 << 20
_LONGEST_FIRST_LINE = 1 << 24
# An error this near to the end of what was read may come from the cut: an escaped pair of surrogates is 12 characters long.
_LONGEST_TOKEN = 16
_SPACE = re.compile(r"[ \t\n\r]*")
_find_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search
_decode = json.JSONDecoder().raw_decode


def read_jsonl(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield the row of each line that is not blank."""
    name = path.as_posix()
    with open_text(path, reading.encoding) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text:
                continue
            try:
                # On short rows json.loads takes twice the time of this.
                row, end = _decode(text)
                if end != len(text):
                    raise json.JSONDecodeError("Extra data", text, len(text) - len(text[end:].lstrip()))
            except (ValueError, RecursionError) as error:
                column = f":{line.index(text) + error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                on_bad(Problem(f"is not JSON ({_reason(error)})", where=f"{name}:{number}{column}"))
                continue
            escaped = _find_surrogate(text) is not None
            if (escaped or type(row) is not dict) and (what := flaw(row, escaped=escaped)):
                on_bad(Problem(what, where=f"{name}:{number}"))
                continue
            yield Located(row, f"{name}:{number}")


def read_json(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield the rows of a list, of the list that is an object's only value, or of JSON lines under the name of `.json`."""
    return (read_jsonl if _holds_lines(path, reading) else _read_list)(path, reading, on_bad)


def _holds_lines(path: Path, reading: Reading) -> bool:
    with open_text(path, reading.encoding) as lines:
        first = next((line for line in iter(lambda: lines.readline(_LONGEST_FIRST_LINE), "") if not line.isspace()), "")
        if not first.lstrip().startswith("{"):
            return False
        try:
            row = json.loads(first)
        except (ValueError, RecursionError):
            return False
        wrapper = len(row) == 1 and isinstance(next(iter(row.values())), list)
        return not wrapper or any(not line.isspace() for line in lines)


def _read_list(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    with open_text(path, reading.encoding) as file:
        window = _Window(file, path.as_posix())
        if not window.next():
            return
        closing = _enter(window)
        if not closing:
            raise _no_list(path, reading)
        before = 0
        while before or window.next() != "]":
            value, end = window.decode()
            # Rows that share a line are told apart by their column.
            where = window.where(column=window.line == before)
            before = window.line
            if what := flaw(value, escaped=window.holds_surrogate(end)):
                on_bad(Problem(what, where=where))
            else:
                yield Located(value, where)
            window.advance(end)
            if window.next() == "]":
                break
            window.take(",")
        for bracket in closing:
            if bracket == "}" and window.next() == ",":
                raise DatasetError("has more keys than the one list of rows", where=window.where(), hint="leave only the list")
            window.take(bracket)
        if window.next():
            raise window.error("Extra data", window.at)


def _enter(window: "_Window") -> str:
    """Step into the list of rows; return the brackets that close it, none if there is no list."""
    closing = "]"
    if window.next() == "{":
        closing = "]}"
        window.take("{")
        if window.next() == '"':
            _, end = window.decode()
            window.advance(end)
            window.take(":")
    if window.next() != "[":
        return ""
    window.take("[")
    return closing


def _no_list(path: Path, reading: Reading) -> DatasetError:
    with open_text(path, reading.encoding) as file:
        window = _Window(file, path.as_posix())
        value, end = window.decode()
        window.advance(end)
        if window.next():
            return window.error("Extra data", window.at)
    hint = "write the rows as [{...}, {...}], or as lines of a .jsonl file"
    return DatasetError(f"is {noun(value)}, not a list of rows", where=path.as_posix(), hint=hint)


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return text.removesuffix(" at").removesuffix(" starting")


class _Window:
    """The part of a JSON file that is in memory; it slides over the file as values are taken from its front."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._text = ""
        self._line_start = 0
        self.at = 0
        self.line = 1

    def next(self) -> str:
        """Go to the next character that is no space; empty at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self.at)
            self.advance(space.end() if space else self.at)
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        """Step over a character that must be next."""
        if self.next() != character:
            raise self.error(f"Expecting '{':' if character == ':' else ','}' delimiter", self.at)
        self.advance(self.at + 1)

    def decode(self) -> tuple[Any, int]:
        """Decode the value that is next; return it and where it ends, and stay in front of it."""
        self.next()
        while True:
            try:
                value, end = _decode(self._text, self.at)
            except json.JSONDecodeError as error:
                offset = error.pos - self.at
                cut = error.pos + _LONGEST_TOKEN > len(self._text) or error.msg.startswith("Unterminated")
                if not (cut and self._more()):
                    raise self.error(_reason(error), self.at + offset) from error
            except (ValueError, RecursionError) as error:
                raise self.error(_reason(error), self.at) from error
            else:
                if end < len(self._text) or not self._more():
                    return value, end

    def holds_surrogate(self, end: int) -> bool:
        return _find_surrogate(self._text, self.at, end) is not None

    def advance(self, end: int) -> None:
        if (newline := self._text.rfind("\n", self.at, end)) >= 0:
            self.line += self._text.count("\n", self.at, end)
            self._line_start = newline + 1
        self.at = end

    def where(self, *, column: bool = False) -> str:
        return f"{self._name}:{self.line}:{self.at - self._line_start + 1}" if column else f"{self._name}:{self.line}"

    def error(self, reason: str, position: int) -> DatasetError:
        self.advance(position)
        return DatasetError(f"is not JSON ({reason})", where=self.where(column=True))

    def _more(self) -> bool:
        # Reading as much again as is there keeps a row of any size linear.
        rest = self._text[self.at :]
        more = self._file.read(max(_CHUNK, len(rest)))
        self._text = rest + more
        self._line_start -= self.at
        self.at = 0
        return bool(more)
