"""Read JSON lines, and JSON lists that need not fit in memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from smolora_core.data.sources.encoding import open_text
from smolora_core.data.sources.located import Located, OnBad, describe_type, row_problem
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem

_CHUNK = 1 << 20
_MAX_FIRST_LINE = 1 << 24
# A decoding error this close to the end of the window may only mean that a token is cut off: an escaped pair of surrogates is
# 12 characters long.
_MAX_TOKEN = 16
_SPACE = re.compile(r"[ \t\n\r]*")
_find_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search
_decode = json.JSONDecoder().raw_decode


def read_jsonl(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield a row for each line that is not blank."""
    name = path.as_posix()
    with open_text(path, reading.encoding) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if not text:
                continue
            try:
                # Twice as fast as json.loads on short rows.
                row, end = _decode(text)
                if end != len(text):
                    raise json.JSONDecodeError("Extra data", text, len(text) - len(text[end:].lstrip()))
            except (ValueError, RecursionError) as error:
                column = f":{line.index(text) + error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                on_bad(Problem(f"is not JSON ({_reason(error)})", where=f"{name}:{number}{column}"))
                continue
            escaped = _find_surrogate(text) is not None
            if (escaped or type(row) is not dict) and (what := row_problem(row, escaped=escaped)):
                on_bad(Problem(what, where=f"{name}:{number}"))
                continue
            yield Located(row, f"{name}:{number}")


def read_json(path: Path, reading: Reading, on_bad: OnBad) -> Iterator[Located]:
    """Yield the rows of a list, of a list that is an object's only value, or of JSON lines in a `.json` file."""
    return (read_jsonl if _is_jsonl(path, reading) else _read_list)(path, reading, on_bad)


def _is_jsonl(path: Path, reading: Reading) -> bool:
    with open_text(path, reading.encoding) as lines:
        first = next((line for line in iter(lambda: lines.readline(_MAX_FIRST_LINE), "") if not line.isspace()), "")
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
            raise _not_a_list(path, reading)
        last_line = 0
        while last_line or window.next() != "]":
            value, end = window.decode()
            # Rows on the same line are located by column too.
            where = window.where(column=window.line == last_line)
            last_line = window.line
            if what := row_problem(value, escaped=window.has_surrogate(end)):
                on_bad(Problem(what, where=where))
            else:
                yield Located(value, where)
            window.advance(end)
            if window.next() == "]":
                break
            window.take(",")
        for bracket in closing:
            if bracket == "}" and window.next() == ",":
                raise DatasetError("has other keys besides the list of rows", where=window.where(), hint="keep only the list")
            window.take(bracket)
        if window.next():
            raise window.error("Extra data", window.at)


def _enter(window: "_Window") -> str:
    """Step into the list of rows; return the brackets that close it, or an empty string if there is no list."""
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


def _not_a_list(path: Path, reading: Reading) -> DatasetError:
    with open_text(path, reading.encoding) as file:
        window = _Window(file, path.as_posix())
        value, end = window.decode()
        window.advance(end)
        if window.next():
            return window.error("Extra data", window.at)
    hint = "write the rows as [{...}, {...}], or one per line in a .jsonl file"
    return DatasetError(f"is {describe_type(value)}, not a list of rows", where=path.as_posix(), hint=hint)


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return text.removesuffix(" at").removesuffix(" starting")


class _Window:
    """The part of a JSON file that is in memory; it slides over the file as values are decoded."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._text = ""
        self._line_start = 0
        self.at = 0
        self.line = 1

    def next(self) -> str:
        """Skip white space and return the next character, or an empty string at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self.at)
            self.advance(space.end() if space else self.at)
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._more():
                return ""

    def take(self, character: str) -> None:
        """Consume the one character that may come next."""
        if self.next() != character:
            raise self.error(f"Expecting '{':' if character == ':' else ','}' delimiter", self.at)
        self.advance(self.at + 1)

    def decode(self) -> tuple[Any, int]:
        """Decode the next value without consuming it; return it and its end."""
        self.next()
        while True:
            try:
                value, end = _decode(self._text, self.at)
            except json.JSONDecodeError as error:
                offset = error.pos - self.at
                cut_off = error.pos + _MAX_TOKEN > len(self._text) or error.msg.startswith("Unterminated")
                if not (cut_off and self._more()):
                    raise self.error(_reason(error), self.at + offset) from error
            except (ValueError, RecursionError) as error:
                raise self.error(_reason(error), self.at) from error
            else:
                if end < len(self._text) or not self._more():
                    return value, end

    def has_surrogate(self, end: int) -> bool:
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
        # Doubling the window keeps the cost of a row of any size linear.
        rest = self._text[self.at :]
        more = self._file.read(max(_CHUNK, len(rest)))
        self._text = rest + more
        self._line_start -= self.at
        self.at = 0
        return bool(more)
