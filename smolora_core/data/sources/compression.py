"""Files as bytes, plain or compressed: the extension says which, and nobody else need know."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from smolora_core.errors import DatasetError

COMPRESSED = (".gz", ".zst")
"""The extensions that stand behind a file's own."""

_FACTOR = 4
"""How many times longer a compressed text is taken to be once it is read; gzip makes a third to a fifth of prose."""


def uncompressed(path: Path) -> Path:
    """Take the compression's extension off a name: `reviews.jsonl` for `reviews.jsonl.gz`."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for its bytes, decompressing them on the way.

    Raises:
        DatasetError: it cannot be opened, or on the way through it proves to be cut off or damaged.
    """
    with _explained(path):
        suffix = path.suffix.lower()
        if suffix == ".gz":
            with gzip.open(path) as file:
                yield cast("BinaryIO", file)
        elif suffix == ".zst":
            from pyarrow.lib import CompressedInputStream, OSFile

            with OSFile(str(path)) as stored, CompressedInputStream(stored, "zstd") as stream, BufferedReader(stream) as file:
                yield file
        else:
            with path.open("rb") as file:
                yield file


def stamp(path: Path) -> tuple[int, ...]:
    """Say what tells this state of a file from another one.

    Raises:
        DatasetError: it is not there.
    """
    with _explained(path):
        status = path.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def size_of(path: Path) -> int:
    """Say how many bytes there are to read, of a compressed file by estimate: four times what it takes on disk.

    Raises:
        DatasetError: it is not there.
    """
    with _explained(path):
        return path.stat().st_size * (_FACTOR if path.suffix.lower() in COMPRESSED else 1)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        # What a decompressor says is an OSError too, but one without a number.
        system = isinstance(error, OSError) and error.errno is not None
        what = f"cannot be read ({error.strerror})" if system else f"cannot be decompressed ({error})"  # type: ignore[union-attr]
        raise DatasetError(what, where=path.as_posix()) from error
