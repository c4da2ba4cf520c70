"""The run's folder: check that it can be written, and resume or move aside an earlier run in it."""

import os
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from smolora_core.checkpoints.disk import DISK, Disk
from smolora_core.checkpoints.lock import RUN, lock_folder, run_id_of
from smolora_core.checkpoints.manifest import MANIFEST, read, verify
from smolora_core.checkpoints.retention import Committed, Keep
from smolora_core.checkpoints.staging import step_of
from smolora_core.checkpoints.store import Store
from smolora_core.config import Resolved
from smolora_core.errors import CheckpointError, ConfigError

_OURS = (
    "run.yaml",
    "events.jsonl",
    "ledger.json",
    "last_error.json",
    "checkpoint_metadata.json",
    "report.html",
    "profile.pstats",
    "prepared",
    "adapter",
    "checkpoint-*",
)
_CLAIMING = ".claiming-"
_FLAG = "--resume"
_KEEP = Keep()


@attrs.frozen
class OpenFolder:
    """A run's locked folder.

    Attributes:
        store: the run's checkpoints.
        checkpoint: the checkpoint to resume from; None if the run starts from scratch.
        notes: messages about what was found and changed.
    """

    store: Store
    checkpoint: Committed | None
    notes: tuple[str, ...]


@contextmanager
def open_folder(folder: Path, resume: str = "never", *, keep: Keep = _KEEP) -> Iterator[OpenFolder]:
    """Create and lock a run's folder, and choose the checkpoint to resume from.

    Args:
        folder: the run's folder.
        resume: `never` moves an earlier run aside and starts from scratch; `auto` resumes from the newest valid checkpoint,
            or starts from scratch if there is none; anything else is a checkpoint, or the run's folder for its newest one.
        keep: which checkpoints to keep, besides the one the run resumes from.

    Raises:
        ConfigError: another run locks the folder, or it does not contain the checkpoint.
        CheckpointError: the checkpoint is damaged, or the file system failed.
    """
    wanted = _requested(folder, resume)
    notes: list[str] = []
    with lock_folder(folder, notes.append) as lock:
        if _half_claimed(folder, DISK) and (aside := move_aside(folder)):
            # An earlier run was only partly moved: its remaining files must not be mistaken for this run's.
            lock.start_new_run()
            notes.append(_moved(aside))
        store = Store(folder=folder, run_id=lock.run_id)
        notes += store.recover()
        chosen: Committed | None = None
        if wanted is not None:
            chosen = _verified(store, wanted, resume)
        elif resume != "never":
            newest = store.newest_valid()
            chosen = newest.committed
            notes += [f"skipped: {problem}" for problem in newest.skipped]
            if chosen is None:
                notes.append(f"no checkpoint to resume in {str(folder)!r}; starting from scratch")
        if chosen is None:
            if aside := move_aside(folder):
                notes.append(_moved(aside))
            lock.start_new_run()
        names = frozenset({chosen.place.name}) if chosen else frozenset[str]()
        kept = attrs.evolve(keep, names=names)
        yield OpenFolder(Store(folder=folder, run_id=lock.run_id, keep=kept), chosen, tuple(notes))


def follow_run(folder: Path, run_id: str, resumed_from: Path | None) -> OpenFolder:
    """Join a run whose folder another process has locked, and whose checkpoint that process has chosen."""
    chosen = Committed(resumed_from, read(resumed_from)) if resumed_from else None
    return OpenFolder(Store(folder=folder, run_id=run_id), chosen, ())


def _requested(folder: Path, resume: str) -> Path | None:
    """Return the path of the requested checkpoint; None for `never`, `auto` and the run's own folder."""
    if resume in ("never", "auto"):
        return None
    try:
        given, own = Path(resume), folder.resolve()
        bare = len(given.parts) == 1 and step_of(given.name) is not None
        wanted = (folder / given if bare else given.expanduser()).resolve()
        is_file, is_checkpoint, is_run = wanted.is_file(), (wanted / MANIFEST).is_file(), (wanted / RUN).is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{resume!r} cannot be used ({error})", where=_FLAG) from error
    if wanted == own:
        return None
    if is_file:
        hint = "pass 'auto', a checkpoint or the run's folder"
        raise ConfigError(f"{resume!r} is a file, not a checkpoint", where=_FLAG, hint=hint)
    elsewhere = given.parent if is_checkpoint and wanted.parent != own else given if is_run else None
    if elsewhere is not None:
        hint = f"to resume there, add --output_dir {shlex.quote(str(elsewhere))}"
        raise ConfigError(f"{resume!r} is not in output_dir {str(folder)!r}", where=_FLAG, hint=hint)
    return wanted


def _verified(store: Store, wanted: Path, resume: str) -> Committed:
    found = {each.place.resolve(): each for each in store.found()}
    if wanted not in found:
        names = ", ".join(place.name for place in found) or "none"
        what = f"{resume!r} is not a checkpoint of the run in {str(store.folder)!r}"
        raise ConfigError(what, where=_FLAG, hint=f"known: {names}")
    verify(found[wanted].place)
    return found[wanted]


def check_output_dir(resolved: Resolved) -> Path:
    """Return the run's folder after checking that it can be written; nothing is created yet.

    Raises:
        ConfigError: the path is a file, the folder cannot be written, or it is inside a data folder.
    """
    where, given = resolved.where("output_dir"), resolved.config.output_dir
    try:
        folder = Path(given).expanduser()
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir():
            raise ConfigError(f"output_dir {given!r} cannot be a folder: {str(existing)!r} is a file", where=where)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise ConfigError(f"output_dir {given!r} cannot be written: no permission in {str(existing)!r}", where=where)
        with suppress(FileNotFoundError):
            folder.lstat()  # raises for a name that the file system does not support
        train = resolved.config.data.train
        for source in [train] if isinstance(train, str) else train:
            data = Path(source).expanduser()
            if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
                what = f"output_dir {given!r} is inside the data folder {source!r}"
                raise ConfigError(what, where=where, hint="choose another folder")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"output_dir {given!r} cannot be used ({error})", where=where) from error
    return folder


def move_aside(folder: Path, disk: Disk = DISK) -> Path | None:
    """Move an earlier run, `run.json` included, to `previous-N`, and return that folder, or None if there was no run.

    The run is moved by a single rename, so it is never partial. The next call finishes an interrupted one.

    Raises:
        CheckpointError: the file system failed.
    """
    half = _half_claimed(folder, disk)
    left = sorted(path for pattern in _OURS for path in folder.glob(pattern))
    if not left and half is None:
        return None
    claiming = half or folder / f"{_CLAIMING}{uuid.uuid4().hex[:8]}"
    number = 1
    try:
        if half is None:
            disk.make_folder(claiming)
        for path in left:
            disk.rename(path, claiming / path.name)
        # If it was moved already, the one in the folder belongs to a later run.
        if disk.kind(claiming / RUN) is None and disk.kind(folder / RUN) is not None:
            disk.rename(folder / RUN, claiming / RUN)
        disk.sync_folder(claiming)
        while disk.kind(aside := folder / f"previous-{number}") is not None:
            number += 1
        disk.rename(claiming, aside)
        disk.sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"cannot move the files of an earlier run ({error})", where=str(folder)) from error
    return aside


def _half_claimed(folder: Path, disk: Disk) -> Path | None:
    found = (each.path for each in disk.entries(folder) if each.kind == "folder" and each.path.name.startswith(_CLAIMING))
    return next(found, None)


def _moved(aside: Path) -> str:
    """Report where an earlier run is now, and how to resume it if it has a checkpoint."""
    resumable = Store(folder=aside, run_id=run_id_of(aside)).found()
    how = f"; resume it with --output_dir {shlex.quote(str(aside))} --resume auto" if resumable else ""
    return f"an earlier run was moved to {aside}{how}"
