"""The cache of prepared rows on disk: keyed by a fingerprint of all inputs, and verified before use.

    place = cache_folder() / fingerprint
    entry = read_entry(place) or write_entry(place, parts, account)

An entry is a folder with `rows.arrow`, the token sequences; `digests.bin`, an integer per example; and `account.json`, the
ledger, and the sizes and digests of the other two files. It is published atomically, by rename.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import attrs
from datasets.arrow_dataset import Dataset
from pyarrow.ipc import new_stream
from pyarrow.lib import ArrowException, OSFile

from smolora_core.data.encode import EncodedBatch
from smolora_core.errors import DatasetError

_ROWS, _DIGESTS, _ACCOUNT = "rows.arrow", "digests.bin", "account.json"
_STAGING = ".staging-"
# Entries are named by their fingerprint.
_NAME = re.compile(rf"(?P<staging>{re.escape(_STAGING)})?[0-9a-f]{{40}}(?(staging)-[0-9a-f]{{8}}(-damaged)?)")
_DAY = 24 * 3600.0
_UNUSED_DAYS = 30


@attrs.frozen
class Entry:
    """A verified entry: memory-mapped token sequences, the digests of the examples in order, and the account."""

    dataset: Dataset
    digests: "memoryview[int]"
    account: Mapping[str, Any]


def cache_folder() -> Path:
    """Locate the cache: `rows` in `$SMOLORA_CACHE`, or in `smolora` in the user's cache folder."""
    given = os.environ.get("SMOLORA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "smolora"
    return Path(given).expanduser() / "rows"


def read_entry(place: Path) -> Entry | None:
    """Read and verify an entry; None if it is missing or damaged."""
    try:
        written, _, text = (place / _ACCOUNT).read_text(encoding="utf-8").partition("\n")
        account = json.loads(text)
        if written != _digest(text) or any(_file_digest(place / name) != digest for name, digest in account["files"].items()):
            return None
        # Mark the last use, for `_remove_unused`; another user's entry can be read all the same.
        with suppress(OSError):
            os.utime(place)
        with (place / _DIGESTS).open("rb") as stream:
            digests = memoryview(mmap(stream.fileno(), 0, access=ACCESS_READ)).cast("q")
        return Entry(Dataset.from_file(str(place / _ROWS)), digests, account)
    except (OSError, ValueError, LookupError, TypeError, ArrowException):
        return None


def write_entry(place: Path, parts: Iterable[EncodedBatch], account: Callable[[], Mapping[str, Any]]) -> Entry:
    """Write parts as they arrive, then the account, and publish the entry.

    Args:
        place: the entry's folder.
        parts: the parts; at least one must have rows.
        account: called after the last part; returns plain values.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written.
    """
    staging = place.with_name(f"{_STAGING}{place.name}-{uuid.uuid4().hex[:8]}")
    try:
        with _dataset_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_unused(place.parent)
            staging.mkdir(mode=0o700)
        _write_parts(staging, parts, place)
        values = account()
        with _dataset_errors(place):
            files = {name: _file_digest(staging / name) for name in (_ROWS, _DIGESTS)}
            text = json.dumps({"files": files, **values})
            (staging / _ACCOUNT).write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
            entry = _publish(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if entry is None:
        raise DatasetError("prepared rows do not read back as they were written", where=str(place), hint="check the disk")
    return entry


def _publish(staging: Path, place: Path) -> Entry | None:
    """Publish an entry, unless a concurrent run was faster; replace a damaged one."""
    try:
        staging.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        if (entry := read_entry(place)) is not None:
            return entry
        place.rename(staging.with_name(f"{staging.name}-damaged"))
        staging.rename(place)
    return read_entry(place)


def _write_parts(staging: Path, parts: Iterable[EncodedBatch], place: Path) -> None:
    with ExitStack() as stack:
        with _dataset_errors(place):
            sink = stack.enter_context(OSFile(str(staging / _ROWS), "wb"))
            digests = stack.enter_context((staging / _DIGESTS).open("wb"))
        writer = None
        for part in parts:
            with _dataset_errors(place):
                array("q", part.digests).tofile(digests)
                digests.flush()
                if part.table is not None:
                    writer = writer or stack.enter_context(new_stream(sink, part.table.schema))
                    writer.write_table(part.table)


@contextmanager
def _dataset_errors(place: Path) -> Iterator[None]:
    """Convert OSErrors; wrap only our own writes, because preprocessors raise OSErrors too."""
    try:
        yield
    except OSError as error:
        hint = "set SMOLORA_CACHE to a folder with free space, or data.cache to false"
        what = f"prepared rows cannot be cached ({error.strerror or error})"
        raise DatasetError(what, where=str(place.parent), hint=hint) from error


def _file_digest(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "blake2b": hashlib.file_digest(stream, "blake2b").hexdigest()}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode()).hexdigest()


def _remove_unused(folder: Path) -> None:
    """Remove entries unused for a month, and what a crash left behind a day ago; keep anything that is not ours."""
    now = time.time()
    for entry in folder.iterdir():
        if not (ours := _NAME.fullmatch(entry.name)):
            continue
        with suppress(OSError):
            if now - entry.stat().st_mtime > (1 if ours["staging"] else _UNUSED_DAYS) * _DAY:
                shutil.rmtree(entry)
