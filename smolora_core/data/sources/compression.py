"""Files as bytes, plain or compressed; the extension decides, and callers need not know."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from smolora_core.errors import DatasetError

COMPRESSED = (".gz", ".zst")
"""Extensions that follow the file's own."""

_EXPANSION = 4
"""The estimated size of a decompressed text relative to its file; gzip shrinks prose to between a third and a fifth."""


def uncompressed(path: Path) -> Path:
    """Strip the compression's extension: `reviews.jsonl.gz` becomes `reviews.jsonl`."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressing them on the fly.

    Raises:
        DatasetError: the file cannot be opened, or turns out to be truncated or damaged while it is read.
    """
    with _dataset_errors(path):
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


def file_state(path: Path) -> tuple[int, ...]:
    """Identify the current content of a file, as a key for caches; raise a DatasetError if the file is missing."""
    with _dataset_errors(path):
        status = path.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def size_of(path: Path) -> int:
    """Estimate how many bytes there are to read; raise a DatasetError if the file is missing."""
    with _dataset_errors(path):
        return path.stat().st_size * (_EXPANSION if path.suffix.lower() in COMPRESSED else 1)


@contextmanager
def _dataset_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        # Decompressors raise OSError too, but without an errno.
        system = isinstance(error, OSError) and error.errno is not None
        what = f"cannot be read ({error.strerror})" if system else f"cannot be decompressed ({error})"  # type: ignore[union-attr]
        raise DatasetError(what, where=path.as_posix()) from error
