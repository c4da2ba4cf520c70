"""One process at a time writes in a run's folder, and the folder says which run it is of."""

import errno
import importlib.metadata
import json
import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import attrs
from filelock import FileLock, Timeout

from smolora_core.checkpoints.disk import DISK, Disk
from smolora_core.checkpoints.index import replace_file
from smolora_core.errors import CheckpointError, ConfigError

__all__ = ["LOCK", "RUN", "RunLock", "hold", "run_id_of"]

LOCK = "run.lock"
RUN = "run.json"
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@attrs.define(kw_only=True)
class RunLock:
    """The lock on a run's folder, for as long as this object is referred to; the system frees it with the process.

    Attributes:
        folder: of the run.
        run_id: what its checkpoints are marked with; a run that is resumed keeps it.
        created: when the run was begun.
    """

    folder: Path
    run_id: str
    created: str
    _lock: FileLock
    _disk: Disk

    def begin_anew(self) -> None:
        """Take the folder for another run than the one it was of."""
        self.run_id, self.created = _new_id(), _now()
        self.write()

    def write(self) -> None:
        """Say in the folder which run it is of, and which process holds it."""
        said = {
            "run_id": self.run_id,
            "created": self.created,
            "version": importlib.metadata.version("smolora"),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
        }
        replace_file(self.folder / RUN, (json.dumps(said, indent=1) + "\n").encode("ascii"), self._disk)

    def release(self) -> None:
        """Let others write in the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def hold(folder: Path, warn: Callable[[str], object] = lambda text: None, disk: Disk = DISK) -> RunLock:
    """Lock a run's folder, which is made if need be, without waiting.

    Args:
        folder: of the run.
        warn: told if the file system has no locks.
        disk: the file system.

    Raises:
        ConfigError: another process holds it.
        CheckpointError: the file system refused.
    """
    lock = FileLock(folder / LOCK, mode=0o600, thread_local=False)
    try:
        disk.make_folders(folder)
        _acquire(lock, warn)
        said = _read(folder, disk)
        held = RunLock(
            folder=folder,
            run_id=said.get("run_id") or _new_id(),
            created=said.get("created") or _now(),
            lock=lock,
            disk=disk,
        )
        held.write()
    except Timeout:
        raise ConfigError(
            f"another process writes here ({_holder(_read(folder, disk))})",
            where=str(folder),
            hint="wait until it has ended, or choose another folder",
        ) from None
    except OSError as error:
        lock.release()
        raise CheckpointError(f"cannot be locked ({error})", where=str(folder)) from error
    return held


def run_id_of(folder: Path, disk: Disk = DISK) -> str | None:
    """Read which run a folder is of; None if it does not say."""
    return _read(folder, disk).get("run_id")


def _acquire(lock: FileLock, warn: Callable[[str], object]) -> None:
    try:
        lock.acquire(timeout=0)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in _NO_LOCKS):
            raise
        warn(f"the file system cannot lock {lock.lock_file} ({error}): let no second run write in its folder")


def _read(folder: Path, disk: Disk) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        said = json.loads(disk.read(folder / RUN))
        if isinstance(said, dict):
            return {name: value for name, value in said.items() if isinstance(value, str | int)}
    return {}


def _holder(said: dict[str, Any]) -> str:
    if "pid" not in said:
        return "which one is not known"
    host = said.get("host")
    elsewhere = f" on {host}" if host != socket.gethostname() else ""
    return f"pid {said['pid']}{elsewhere}, since {said.get('started')}"


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
