"""How bytes become text: the one place that opens a text file of the user's."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import IncrementalNewlineDecoder, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import attrs

from smolora_core.data.sources.charset import marked, western, with_zeros
from smolora_core.data.sources.compression import open_bytes, stamp
from smolora_core.errors import DatasetError, Problem

_SCANNED = 1 << 26
"""Bytes of a file that are looked at before the first row of it is read."""
_CHUNK = 1 << 16
_REMEDY = "save it as UTF-8, or set data.encoding to what it is"


@attrs.frozen
class Encoding:
    """What a file is decoded with, and what there is to say where that is a guess."""

    codec: str
    guess: Problem | None = None


@contextmanager
def open_text(path: Path, encoding: str = "auto", newline: str | None = None) -> Iterator[TextIO]:
    """Open a file for its text, with or without a byte order mark.

    Args:
        path: the file, which may be compressed.
        encoding: what it is decoded with; `auto` leaves it to `encoding_of`.
        newline: as for `open`.

    Raises:
        DatasetError: it cannot be opened, or a line of it cannot be decoded.
    """
    codec = encoding_of(path, encoding).codec
    try:
        with open_bytes(path) as file, TextIOWrapper(file, codec, newline=newline) as text:
            yield text
    except UnicodeDecodeError as error:
        if encoding != "auto":
            hint = "data.encoding says it is; leave that out, or set it to what it is"
            raise _refused(path, codec, encoding, hint) from error
        guess = western([error.object]) if codec == "utf-8" else ""
        hint = f"set data.encoding to {guess}, or to what it is" if guess else _REMEDY
        raise _refused(path, codec, _title(codec), hint) from error


def encoding_of(path: Path, encoding: str = "auto") -> Encoding:
    """See what a file is decoded with.

    A byte order mark says it. Without one, a text with zero bytes where UTF-16 and UTF-32 have them is that, by guess. What
    decodes as UTF-8, in its first 64 MiB, is UTF-8. Anything else is windows-1252 or latin-1, by guess, if it looks like a
    western language.

    Args:
        path: the file, which may be compressed.
        encoding: what the user says it is, or `auto`.

    Raises:
        DatasetError: it cannot be read, or may be in any of many encodings.
    """
    return _encoding_of(path, encoding, stamp(path))


@lru_cache(maxsize=4096)
def _encoding_of(path: Path, encoding: str, _: tuple[int, ...]) -> Encoding:
    with open_bytes(path) as file:
        head = file.read(_CHUNK)
    if encoding != "auto":
        return Encoding(_spelled_out(codecs.lookup(encoding).name, head))
    if codec := marked(head):
        return Encoding(codec)
    if zeros := with_zeros(head):
        what = f"has no byte order mark and looks like {_title(zeros)}: read as {zeros}"
        return Encoding(zeros, Problem(what, where=path.as_posix(), hint="set data.encoding if that is wrong"))
    if (flaw := _first_flaw(path, "utf-8", _SCANNED)) is None:
        return Encoding("utf-8")
    line, byte = flaw
    with open_bytes(path) as file:
        guess = western(_chunks(file, _SCANNED))
    if not guess:
        raise _refused(path, "utf-8", "UTF-8", _REMEDY)
    what = f"is not UTF-8 (byte 0x{byte:02x}): read as {guess}"
    return Encoding(guess, Problem(what, where=f"{path.as_posix()}:{line}", hint="set data.encoding if that is wrong"))


def _spelled_out(codec: str, head: bytes) -> str:
    """Take the mark for no part of the text, and say the order of bytes where there is no mark."""
    mark, zeros = marked(head), with_zeros(head)
    if mark and codec.startswith(mark.removesuffix("-sig")):
        return mark
    if codec in ("utf-16", "utf-32"):
        return zeros if zeros.startswith(codec) else f"{codec}-le"
    return codec


def _first_flaw(path: Path, codec: str, limit: int | None = None) -> tuple[int, int] | None:
    """Find the line that does not decode, and its first byte that does not; None if there is none up to the limit."""
    decoder = codecs.getincrementaldecoder(codec)()
    start = 0
    with open_bytes(path) as file:
        for chunk in chain(_chunks(file, limit), [b""]):
            try:
                decoder.decode(chunk, final=not chunk and (limit is None or not file.read(1)))
            except UnicodeDecodeError as error:
                offset = start + len(chunk) - len(error.object) + error.start
                return _line_at(path, codec, offset), error.object[error.start]
            start += len(chunk)
    return None


def _line_at(path: Path, codec: str, offset: int) -> int:
    """Count lines as those who read them do: a carriage return ends one too."""
    decoder, breaks = codecs.getincrementaldecoder(codec)(), IncrementalNewlineDecoder(None, translate=True)
    with open_bytes(path) as file:
        lines = sum(breaks.decode(decoder.decode(chunk)).count("\n") for chunk in _chunks(file, max(0, offset)))
    return 1 + lines + breaks.decode("", final=True).count("\n")


def _chunks(file: BinaryIO, limit: int | None) -> Iterator[bytes]:
    """Yield the bytes up to the limit."""
    left = limit
    while chunk := file.read(_CHUNK if left is None else min(_CHUNK, left)):
        yield chunk
        left = None if left is None else left - len(chunk)


def _refused(path: Path, codec: str, title: str, hint: str) -> DatasetError:
    line, byte = _first_flaw(path, codec) or (1, 0)
    return DatasetError(f"is not {title} (byte 0x{byte:02x})", where=f"{path.as_posix()}:{line}", hint=hint)


def _title(codec: str) -> str:
    return codec.removesuffix("-sig").removesuffix("-le").removesuffix("-be").upper()
