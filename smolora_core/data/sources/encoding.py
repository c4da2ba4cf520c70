"""Decode text files: every text file of the user's is opened here."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import IncrementalNewlineDecoder, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

import attrs

from smolora_core.data.sources.charset import codec_by_mark, codec_by_zeros, guess_western
from smolora_core.data.sources.compression import file_state, open_bytes
from smolora_core.errors import DatasetError, Problem

_SCANNED = 1 << 26
"""Bytes of a file that are scanned before its first row is read."""
_CHUNK = 1 << 16
_REMEDY = "save it as UTF-8, or set data.encoding to its encoding"
_IF_WRONG = "set data.encoding if that is wrong"


@attrs.frozen
class Encoding:
    """The codec that decodes a file, and a note if it is a guess."""

    codec: str
    note: Problem | None = None


@contextmanager
def open_text(path: Path, encoding: str = "auto", newline: str | None = None) -> Iterator[TextIO]:
    """Open a text file, compressed or not, with or without a byte order mark; `encoding_of` resolves `auto`.

    Raises:
        DatasetError: the file cannot be opened, or one of its lines cannot be decoded.
    """
    codec = encoding_of(path, encoding).codec
    try:
        with open_bytes(path) as file, TextIOWrapper(file, codec, newline=newline) as text:
            yield text
    except UnicodeDecodeError as error:
        if encoding != "auto":
            hint = "remove data.encoding, or set it to the file's encoding"
            raise _undecodable(path, codec, encoding, hint) from error
        guess = guess_western([error.object]) if codec == "utf-8" else ""
        hint = f"set data.encoding to {guess}, or to its actual encoding" if guess else _REMEDY
        raise _undecodable(path, codec, _title(codec), hint) from error


def encoding_of(path: Path, encoding: str = "auto") -> Encoding:
    """Resolve the encoding of a file, compressed or not.

    `auto` trusts a byte order mark. Without one it guesses UTF-16 or UTF-32 from zero bytes in the right places, then takes
    what decodes as UTF-8 in its first 64 MiB, and last guesses windows-1252 or latin-1 if the language looks western.

    Raises:
        DatasetError: the file cannot be read, or its encoding cannot be guessed.
    """
    return _encoding_of(path, encoding, file_state(path))


@lru_cache(maxsize=4096)
def _encoding_of(path: Path, encoding: str, _: tuple[int, ...]) -> Encoding:
    with open_bytes(path) as file:
        head = file.read(_CHUNK)
    if encoding != "auto":
        return Encoding(_exact_codec(codecs.lookup(encoding).name, head))
    if codec := codec_by_mark(head):
        return Encoding(codec)
    if zeros := codec_by_zeros(head):
        what = f"has no byte order mark but looks like {_title(zeros)}, reading it as {zeros}"
        return Encoding(zeros, Problem(what, where=path.as_posix(), hint=_IF_WRONG))
    if (undecodable := _find_undecodable(path, "utf-8", _SCANNED)) is None:
        return Encoding("utf-8")
    line, byte = undecodable
    with open_bytes(path) as file:
        guess = guess_western(_chunks(file, _SCANNED))
    if not guess:
        raise _undecodable(path, "utf-8", "UTF-8", _REMEDY)
    what = f"is not UTF-8 (byte 0x{byte:02x}), reading it as {guess}"
    return Encoding(guess, Problem(what, where=f"{path.as_posix()}:{line}", hint=_IF_WRONG))


def _exact_codec(codec: str, head: bytes) -> str:
    """Choose the variant that skips a byte order mark, or the one with the right byte order where there is no mark."""
    mark, zeros = codec_by_mark(head), codec_by_zeros(head)
    if mark and codec.startswith(mark.removesuffix("-sig")):
        return mark
    if codec in ("utf-16", "utf-32"):
        return zeros if zeros.startswith(codec) else f"{codec}-le"
    return codec


def _find_undecodable(path: Path, codec: str, limit: int | None = None) -> tuple[int, int] | None:
    """Find the first byte that does not decode; return its line and value, or None if there is none up to the limit."""
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
    """Count lines as the readers do: a carriage return ends one too."""
    decoder, breaks = codecs.getincrementaldecoder(codec)(), IncrementalNewlineDecoder(None, translate=True)
    with open_bytes(path) as file:
        lines = sum(breaks.decode(decoder.decode(chunk)).count("\n") for chunk in _chunks(file, max(0, offset)))
    return 1 + lines + breaks.decode("", final=True).count("\n")


def _chunks(file: BinaryIO, limit: int | None) -> Iterator[bytes]:
    left = limit
    while chunk := file.read(_CHUNK if left is None else min(_CHUNK, left)):
        yield chunk
        left = None if left is None else left - len(chunk)


def _undecodable(path: Path, codec: str, title: str, hint: str) -> DatasetError:
    line, byte = _find_undecodable(path, codec) or (1, 0)
    return DatasetError(f"is not {title} (byte 0x{byte:02x})", where=f"{path.as_posix()}:{line}", hint=hint)


def _title(codec: str) -> str:
    return codec.removesuffix("-sig").removesuffix("-le").removesuffix("-be").upper()
