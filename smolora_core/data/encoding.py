"""How bytes become text: the one place that opens a text file of the user's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from smolora_core.errors import DatasetError

__all__ = ["open_text"]

_SAMPLE = 1 << 16


@contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file.
        newline: as for `open`.

    Raises:
        DatasetError: it cannot be opened, or on the way through it a line proves not to be UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        raise _undecodable(path) from None
    except OSError as error:
        raise DatasetError(f"cannot be read ({error.strerror or error})", where=path.as_posix()) from None


def _undecodable(path: Path) -> DatasetError:
    # The decoder counts from the start of a chunk that nobody knows, so the line is looked up once more.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = line[error.start]
                sample = line + file.read(_SAMPLE)
                where = f"{path.as_posix()}:{number}"
                return DatasetError(f"is not UTF-8 (byte 0x{byte:02x})", where=where, hint=f"{_guess(sample)}save it as UTF-8")
    return DatasetError("is not UTF-8", where=path.as_posix(), hint="save it as UTF-8")


def _guess(sample: bytes) -> str:
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it looks like UTF-16; "
    # In western languages accented letters are few; where half of the bytes are above ASCII, it may be any of many encodings.
    if sum(byte > 127 for byte in sample) < len(sample) / 4:
        return "it looks like latin-1 or windows-1252; "
    return ""
