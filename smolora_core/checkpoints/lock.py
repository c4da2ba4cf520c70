"""One process at a time writes in a run's folder, and the folder says which run it is of."""

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
        """Take the folder for another run than the one it was of.

        Raises:
            CheckpointError: the file system refused.
        """
        self.run_id, self.created = _new_id(), _now()
        try:
            self.write()
        except OSError as error:
            raise CheckpointError(f"cannot be written ({error.strerror or error})", where=str(self.folder / RUN)) from error

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
        warn: told if the file system has no locks, and of what is wrong with the folder's record and does no harm.
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
        known = said.get("run_id")
        held = RunLock(
            folder=folder,
            run_id=known or _run_id_of_checkpoints(folder, warn, disk) or _new_id(),
            created=said.get("created") or _now(),
            lock=lock,
            disk=disk,
        )
        try:
            held.write()
        except OSError as error:
            if not known:
                raise
            # Which run it is stands there; a full disk must not keep old checkpoints from being removed.
            warn(f"{RUN} does not name this process ({error.strerror or error})")
    except Timeout:
        raise ConfigError(
            f"another process writes here ({_holder(folder, disk)})",
            where=str(folder),
            hint="wait until it has ended, or choose another folder",
        ) from None
    except CheckpointError:
        lock.release()
        raise
    except OSError as error:
        lock.release()
        raise CheckpointError(f"cannot be locked ({error})", where=str(folder)) from error
    return held


def run_id_of(folder: Path, disk: Disk = DISK) -> str | None:
    """Read which run a folder is of; None if it does not say.

    Raises:
        CheckpointError: what it says cannot be read now.
    """
    try:
        return _read(folder, disk).get("run_id") or None
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error})", where=str(folder / RUN)) from error


def _acquire(lock: FileLock, warn: Callable[[str], object]) -> None:
    try:
        lock.acquire(timeout=0)
    except (NotImplementedError, OSError) as error:
        if isinstance(error, Timeout) or (isinstance(error, OSError) and error.errno not in _NO_LOCKS):
            raise
        warn(f"the file system cannot lock {lock.lock_file} ({error}): let no second run write in its folder")


def _read(folder: Path, disk: Disk) -> dict[str, Any]:
    """Read the record; nothing is in it if there is none or it is damaged, and what it cannot tell now is an `OSError`."""
    try:
        said = json.loads(disk.read(folder / RUN))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {name: value for name, value in said.items() if isinstance(value, int if name == "pid" else str)}


def _run_id_of_checkpoints(folder: Path, warn: Callable[[str], object], disk: Disk) -> str | None:
    """Read from the newest valid checkpoint what the record should say: a run is not given up for it."""
    newest = Store(folder=folder, run_id=None, disk=disk).newest_valid().committed
    if newest is None:
        return None
    warn(f"{RUN} is missing or damaged: the run is taken for the one of {newest.place.name}")
    return newest.manifest.run_id


def _holder(folder: Path, disk: Disk) -> str:
    try:
        said = _read(folder, disk)
    except OSError:
        said = {}
    if "pid" not in said:
        return "which one is not known"
    host = said.get("host")
    elsewhere = f" on {host}" if host != socket.gethostname() else ""
    return f"pid {said['pid']}{elsewhere}, since {said.get('started')}"


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
