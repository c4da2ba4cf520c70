"""The folder of a run: whether it can be written, what an earlier run left in it, and whether that is continued."""

import os
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from smolora_core.checkpoints.disk import DISK, Disk
from smolora_core.checkpoints.lock import RUN, hold, run_id_of
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


@attrs.frozen
class OpenFolder:
    """A run's folder that nobody else writes to.

    Attributes:
        store: its checkpoints.
        checkpoint: the checkpoint to resume from; None where the run starts from scratch.
        notes: what was found, and what was done about it.
    """

    store: Store
    checkpoint: Committed | None
    notes: tuple[str, ...]


@contextmanager
def open_folder(folder: Path, resume: str = "never", *, keep: int = 2, where: str = "--resume") -> Iterator[OpenFolder]:
    """Hold a run's folder, and choose what the run goes on from.

    Args:
        folder: of the run; it is made.
        resume: `never` begins anew, and what an earlier run left is moved aside; `auto` goes on from the newest checkpoint
            that is valid, and begins anew where there is none; else a checkpoint, or the folder of the run.
        keep: how many of the latest checkpoints stay.
        where: it was asked for.

    Raises:
        ConfigError: another run holds the folder, or there is no such checkpoint in it.
        CheckpointError: that checkpoint is not what was written, or the file system refused.
    """
    named = _named(folder, resume, where)
    notes: list[str] = []
    with hold(folder, notes.append) as lock:
        if _half_claimed(folder, DISK) and (aside := claim(folder)):
            # What else that run has left in the folder is not to be adopted without the rest of it.
            lock.begin_anew()
            notes.append(_moved(aside))
        store = Store(folder=folder, run_id=lock.run_id)
        notes += store.sweep()
        chosen: Committed | None = None
        if named is not None:
            chosen = _found(store, named, resume, where)
        elif resume != "never":
            newest = store.newest_valid()
            chosen = newest.committed
            notes += [f"skipped: {problem}" for problem in newest.skipped]
            if chosen is None:
                notes.append(f"nothing to go on from in {str(folder)!r}: the run begins anew")
        if chosen is None:
            if aside := claim(folder):
                notes.append(_moved(aside))
            lock.begin_anew()
        names = frozenset({chosen.place.name}) if chosen else frozenset[str]()
        kept = Keep(latest=keep, names=names)
        yield OpenFolder(Store(folder=folder, run_id=lock.run_id, keep=kept), chosen, tuple(notes))


def follow_run(folder: Path, run_id: str, resumed_from: Path | None) -> OpenFolder:
    """Take part in a run whose folder another process holds.

    Args:
        folder: of the run.
        run_id: of the run.
        resumed_from: the checkpoint that the other process has chosen.
    """
    chosen = Committed(resumed_from, read(resumed_from)) if resumed_from else None
    return OpenFolder(Store(folder=folder, run_id=run_id), chosen, ())


def _named(folder: Path, resume: str, where: str) -> Path | None:
    """Find the place of the checkpoint that was asked for; None where none was, but `never`, `auto` or the run's folder."""
    if resume in ("never", "auto"):
        return None
    try:
        given, own = Path(resume), folder.resolve()
        bare = len(given.parts) == 1 and step_of(given.name) is not None
        wanted = (folder / given if bare else given.expanduser()).resolve()
        is_file, is_checkpoint, is_run = wanted.is_file(), (wanted / MANIFEST).is_file(), (wanted / RUN).is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{resume!r} cannot be used ({error})", where=where) from error
    if wanted == own:
        return None
    if is_file:
        hint = "give 'auto', a checkpoint or the folder of the run"
        raise ConfigError(f"{resume!r} is a file and no checkpoint", where=where, hint=hint)
    elsewhere = given.parent if is_checkpoint and wanted.parent != own else given if is_run else None
    if elsewhere is not None:
        hint = f"to go on there add --output_dir {shlex.quote(str(elsewhere))}"
        raise ConfigError(f"{resume!r} is not in output_dir {str(folder)!r}", where=where, hint=hint)
    return wanted


def _found(store: Store, wanted: Path, resume: str, where: str) -> Committed:
    found = {each.place.resolve(): each for each in store.found()}
    if wanted not in found:
        names = ", ".join(place.name for place in found) or "none"
        what = f"{resume!r} is no checkpoint of the run in {str(store.folder)!r}"
        raise ConfigError(what, where=where, hint=f"it has {names}")
    verify(found[wanted].place)
    return found[wanted]


def locate(resolved: Resolved) -> Path:
    """Find the folder that a config means, and make sure that it can be written; nothing is made yet.

    Raises:
        ConfigError: a file stands there, or the folder cannot be made or written; or training would read it as data.
    """
    where = resolved.where("output_dir")
    given = resolved.config.output_dir
    try:
        folder = Path(given).expanduser()
        standing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not standing.is_dir():
            raise ConfigError(f"output_dir {given!r} cannot be a folder: {str(standing)!r} is a file", where=where)
        if not os.access(standing, os.W_OK | os.X_OK):
            raise ConfigError(f"output_dir {given!r} cannot be written: no permission in {str(standing)!r}", where=where)
        with suppress(FileNotFoundError):
            folder.lstat()  # a name that the file system does not take raises here
        sources = [resolved.config.data.train] if isinstance(resolved.config.data.train, str) else resolved.config.data.train
        for source in sources:
            data = Path(source).expanduser()
            if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
                raise ConfigError(
                    f"output_dir {given!r} lies in the data folder {source!r}", where=where, hint="choose another"
                )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"output_dir {given!r} cannot be used ({error})", where=where) from error
    return folder


def claim(folder: Path, disk: Disk = DISK) -> Path | None:
    """Move what an earlier run left into `previous-N`, its `run.json` too, so that the folder describes one run only.

    It gets there whole, by one rename; what an interrupted claim has begun, this one finishes.

    Returns:
        Where the earlier run is now, or None if there was none.

    Raises:
        CheckpointError: the file system refused.
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
        # If it is there already, the one in the folder is of a later start.
        if disk.kind(claiming / RUN) is None and disk.kind(folder / RUN) is not None:
            disk.rename(folder / RUN, claiming / RUN)
        disk.sync_folder(claiming)
        while disk.kind(aside := folder / f"previous-{number}") is not None:
            number += 1
        disk.rename(claiming, aside)
        disk.sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"what an earlier run left cannot be moved ({error})", where=str(folder)) from error
    return aside


def _half_claimed(folder: Path, disk: Disk) -> Path | None:
    found = (each.path for each in disk.entries(folder) if each.kind == "folder" and each.path.name.startswith(_CLAIMING))
    return next(found, None)


def _moved(aside: Path) -> str:
    """Say where an earlier run is, and how to go on with it if it can be."""
    there = Store(folder=aside, run_id=run_id_of(aside)).found()
    go_on = f"; go on with it there: --output_dir {shlex.quote(str(aside))} --resume auto" if there else ""
    return f"an earlier run was moved to {aside}{go_on}"
