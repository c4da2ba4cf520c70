"""Prepared rows on disk: written once, found again by a fingerprint of all that made them, and checked before use.

    place = cache_folder() / fingerprint
    kept = read_entry(place) or write_entry(place, parts, account)

An entry is a folder of `rows.arrow`, the token sequences; `digests.bin`, a number for each example; and `account.json`, what
became of each row, and the sizes and digests of the other two. It appears by rename, whole or not at all.
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

from smolora_core.data.encode import Part
from smolora_core.errors import DatasetError

_ROWS, _DIGESTS, _ACCOUNT = "rows.arrow", "digests.bin", "account.json"
_STAGING = ".staging-"
# Entries are named by their fingerprint.
_NAME = re.compile(rf"(?P<staging>{re.escape(_STAGING)})?[0-9a-f]{{40}}(?(staging)-[0-9a-f]{{8}}(-damaged)?)")
_DAY = 24 * 3600.0
_UNUSED_DAYS = 30


@attrs.frozen
class Kept:
    """An entry that was read.

    Attributes:
        dataset: token sequences, read from disk as they are needed.
        digests: of each example, in order, read from disk likewise.
        account: what was written beside them.
    """

    dataset: Dataset
    digests: "memoryview[int]"
    account: Mapping[str, Any]


def cache_folder() -> Path:
    """Where prepared rows are kept: `rows` in `$SMOLORA_CACHE`, or in `smolora` in the user's folder for caches."""
    given = os.environ.get("SMOLORA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "smolora"
    return Path(given).expanduser() / "rows"


def read_entry(place: Path) -> Kept | None:
    """Read an entry back, unless there is none or it is not what was written."""
    try:
        written, _, text = (place / _ACCOUNT).read_text(encoding="utf-8").partition("\n")
        account = json.loads(text)
        if written != _digest(text) or any(_about(place / name) != about for name, about in account["files"].items()):
            return None
        # The last use, by which unused entries are told; an entry of somebody else's is used all the same.
        with suppress(OSError):
            os.utime(place)
        with (place / _DIGESTS).open("rb") as stream:
            digests = memoryview(mmap(stream.fileno(), 0, access=ACCESS_READ)).cast("q")
        return Kept(Dataset.from_file(str(place / _ROWS)), digests, account)
    except (OSError, ValueError, LookupError, TypeError, ArrowException):
        return None


def write_entry(place: Path, parts: Iterable[Part], account: Callable[[], Mapping[str, Any]]) -> Kept:
    """Write parts as they come, then what is to be said of them, and make the entry visible.

    Args:
        place: the entry's folder to be.
        parts: of which at least one has rows.
        account: called after the last part; gives plain values.

    Raises:
        DatasetError: there is no room, or the folder cannot be written.
    """
    staging = place.with_name(f"{_STAGING}{place.name}-{uuid.uuid4().hex[:8]}")
    try:
        with _writing(place):
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sweep(place.parent)
            staging.mkdir(mode=0o700)
        _write_parts(staging, parts, place)
        values = account()
        with _writing(place):
            files = {name: _about(staging / name) for name in (_ROWS, _DIGESTS)}
            text = json.dumps({"files": files, **values})
            (staging / _ACCOUNT).write_text(f"{_digest(text)}\n{text}", encoding="utf-8")
            kept = _publish(staging, place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if kept is None:
        raise DatasetError("prepared rows were not read back as they were written", where=str(place), hint="check the disk")
    return kept


def _publish(staging: Path, place: Path) -> Kept | None:
    """Make an entry visible, unless a run beside this one has come first; a damaged one gives way."""
    try:
        staging.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        if (kept := read_entry(place)) is not None:
            return kept
        place.rename(staging.with_name(f"{staging.name}-damaged"))
        staging.rename(place)
    return read_entry(place)


def _write_parts(staging: Path, parts: Iterable[Part], place: Path) -> None:
    with ExitStack() as stack:
        with _writing(place):
            sink = stack.enter_context(OSFile(str(staging / _ROWS), "wb"))
            digests = stack.enter_context((staging / _DIGESTS).open("wb"))
        writer = None
        for part in parts:
            with _writing(place):
                array("q", part.digests).tofile(digests)
                digests.flush()
                if part.table is not None:
                    writer = writer or stack.enter_context(new_stream(sink, part.table.schema))
                    writer.write_table(part.table)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say what the file system refused. Only our own writing stands in here: a preprocessor may have OSErrors of its own."""
    try:
        yield
    except OSError as error:
        hint = "name a folder with room in the environment variable SMOLORA_CACHE, or set data.cache to false"
        what = f"prepared rows cannot be kept ({error.strerror or error})"
        raise DatasetError(what, where=str(place.parent), hint=hint) from error


def _about(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        return {"size": file.stat().st_size, "blake2b": hashlib.file_digest(stream, "blake2b").hexdigest()}


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode()).hexdigest()


def _sweep(folder: Path) -> None:
    """Remove entries that nobody has used for a month, and what a crash left a day ago; whatever else is there stays."""
    now = time.time()
    for entry in folder.iterdir():
        if not (ours := _NAME.fullmatch(entry.name)):
            continue
        with suppress(OSError):
            if now - entry.stat().st_mtime > (1 if ours["staging"] else _UNUSED_DAYS) * _DAY:
                shutil.rmtree(entry)
