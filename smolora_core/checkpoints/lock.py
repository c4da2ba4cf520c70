"""The lock that keeps a second process out of a run's folder, and the record of which run the folder belongs to."""

import errno
import importlib.metadata
import json
import os
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import attrs
from filelock import FileLock, Timeout

from smolora_core.checkpoints.disk import DISK, Disk, replace_file
from smolora_core.checkpoints.store import Store
from smolora_core.errors import CheckpointError, ConfigError

LOCK = "run.lock"
RUN = "run.json"
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@attrs.define(kw_only=True)
class RunLock:
    """The lock on a run's folder, held while this object lives; the system releases it when the process dies.

    Attributes:
        folder: the run's folder.
        run_id: the id in the run's checkpoints; a resumed run keeps it.
        created: when the run first started.
    """

    folder: Path
    run_id: str
    created: str
    _lock: FileLock
    _disk: Disk

    def start_new_run(self) -> None:
        """Start a new run in the folder, under a new id.

        Raises:
            CheckpointError: the file system refused.
        """
        self.run_id, self.created = _new_id(), _now()
        try:
            self._write_record()
        except OSError as error:
            raise CheckpointError(f"cannot be written ({error.strerror or error})", where=str(self.folder / RUN)) from error

    def release(self) -> None:
        """Let other processes lock the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _write_record(self) -> None:
        record = {
            "run_id": self.run_id,
            "created": self.created,
            "version": importlib.metadata.version("smolora"),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
        }
        replace_file(self.folder / RUN, (json.dumps(record, indent=1) + "\n").encode("ascii"), self._disk)


def lock_folder(folder: Path, warn: Callable[[str], object] = lambda text: None, disk: Disk = DISK) -> RunLock:
    """Lock a run's folder without waiting; create the folder if it is missing.

    Raises:
        ConfigError: another process holds the lock.
        CheckpointError: the file system refused.
    """
    lock = FileLock(folder / LOCK, mode=0o600, thread_local=False)
    try:
        disk.make_folders(folder)
        _acquire(lock, warn)
        record = _read_record(folder, disk)
        known_id = record.get("run_id")
        held = RunLock(
            folder=folder,
            run_id=known_id or _run_id_of_checkpoints(folder, warn, disk) or _new_id(),
            created=record.get("created") or _now(),
            lock=lock,
            disk=disk,
        )
        try:
            held._write_record()
        except OSError as error:
            if not known_id:
                raise
            # The record still names the run, and old checkpoints must be removable from a full disk.
            warn(f"{RUN} could not be updated ({error.strerror or error})")
    except Timeout:
        raise ConfigError(
            f"the run folder is locked by another process ({_holder(folder, disk)})",
            where=str(folder),
            hint="wait for it to finish, or choose another folder",
        ) from None
    except CheckpointError:
        lock.release()
        raise
    except OSError as error:
        lock.release()
        raise CheckpointError(f"cannot be locked ({error})", where=str(folder)) from error
    return held


def run_id_of(folder: Path, disk: Disk = DISK) -> str | None:
    """Read the id of the run that a folder belongs to; None if its record is missing or damaged.

    Raises:
        CheckpointError: the record cannot be read.
    """
    try:
        return _read_record(folder, disk).get("run_id") or None
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=str(folder / RUN)) from error


def _acquire(lock: FileLock, warn: Callable[[str], object]) -> None:
    try:
        lock.acquire(timeout=0)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in _UNSUPPORTED):
            raise
        warn(f"the file system cannot lock {lock.lock_file} ({error}): do not start a second run in this folder")


def _read_record(folder: Path, disk: Disk) -> dict[str, Any]:
    """Read the well-formed fields of the record; none if it is missing or damaged."""
    try:
        record = json.loads(disk.read(folder / RUN))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(record, dict):
        return {}
    return {name: value for name, value in record.items() if isinstance(value, int if name == "pid" else str)}


def _run_id_of_checkpoints(folder: Path, warn: Callable[[str], object], disk: Disk) -> str | None:
    """Recover the run id from the newest valid checkpoint, so that losing the record does not lose the run."""
    newest = Store(folder=folder, run_id=None, disk=disk).newest_valid().committed
    if newest is None:
        return None
    warn(f"{RUN} is missing or damaged; recovered the run id from {newest.place.name}")
    return newest.manifest.run_id


def _holder(folder: Path, disk: Disk) -> str:
    try:
        record = _read_record(folder, disk)
    except OSError:
        record = {}
    if "pid" not in record:
        return "pid unknown"
    host = record.get("host")
    elsewhere = f" on {host}" if host != socket.gethostname() else ""
    return f"pid {record['pid']}{elsewhere}, since {record.get('started')}"


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
