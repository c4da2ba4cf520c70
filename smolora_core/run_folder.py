"""The folder of a run: whether it can be written, what an earlier run left in it, and whether that is continued."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from smolora_core.checkpoints.lock import hold
from smolora_core.checkpoints.manifest import read, verify
from smolora_core.checkpoints.retention import Committed, Keep
from smolora_core.checkpoints.store import Store
from smolora_core.config import Resolved
from smolora_core.errors import ConfigError

__all__ = ["Opened", "claim", "follow_run", "locate", "open_run"]

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


@attrs.frozen
class Opened:
    """A run's folder that nobody else writes to.

    Attributes:
        store: its checkpoints.
        resumed_from: the checkpoint to go on from; None where the run begins.
        notes: what was found, and what was done about it.
    """

    store: Store
    resumed_from: Committed | None
    notes: tuple[str, ...]


@contextmanager
def open_run(folder: Path, resume: str = "never", *, keep: int = 2, where: str = "--resume") -> Iterator[Opened]:
    """Hold a run's folder, and choose what the run goes on from.

    Args:
        folder: of the run; it is made.
        resume: `never` begins anew, and what an earlier run left is moved aside; `auto` goes on from the newest checkpoint
            that is valid, and begins anew where there is none; else a checkpoint, or the folder of the run.
        keep: how many of the latest checkpoints stay.
        where: it was asked for.

    Raises:
        ConfigError: another run holds the folder, or there is no such checkpoint in it.
        CheckpointError: that checkpoint is not what was written.
    """
    notes: list[str] = []
    with hold(folder, notes.append) as lock:
        chosen: Committed | None = None
        store = Store(folder=folder, run_id=lock.run_id)
        notes += store.sweep()
        if resume != "never":
            chosen = _named(store, folder, resume, where)
            if chosen is None:
                newest = store.newest_valid()
                chosen = newest.committed
                notes += [f"skipped: {problem}" for problem in newest.skipped]
        if chosen is None:
            # Under a new name first: what is left from here on belongs to no run that is continued.
            lock.begin_anew()
            if (aside := claim(folder)) is not None:
                notes.append(f"an earlier run was moved to {aside}")
        names = frozenset({chosen.place.name}) if chosen else frozenset[str]()
        kept = Keep(latest=keep, names=names)
        yield Opened(Store(folder=folder, run_id=lock.run_id, keep=kept), chosen, tuple(notes))


def follow_run(folder: Path, run_id: str, resumed_from: Path | None) -> Opened:
    """Take part in a run whose folder another process holds.

    Args:
        folder: of the run.
        run_id: of the run.
        resumed_from: the checkpoint that the other process has chosen.
    """
    chosen = Committed(resumed_from, read(resumed_from)) if resumed_from else None
    return Opened(Store(folder=folder, run_id=run_id), chosen, ())


def _named(store: Store, folder: Path, resume: str, where: str) -> Committed | None:
    """Find the checkpoint that was asked for; None where the newest was, by `auto` or the run's folder."""
    wanted = Path(resume).expanduser().resolve()
    if resume == "auto" or wanted == folder.resolve():
        return None
    found = {each.place.resolve(): each for each in store.found()}
    if wanted not in found:
        names = ", ".join(place.name for place in found) or "none"
        raise ConfigError(f"{resume!r} is no checkpoint of the run in {str(folder)!r}", where=where, hint=f"it has {names}")
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
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"output_dir {given!r} cannot be used ({error})", where=where) from error
    return folder


def claim(folder: Path) -> Path | None:
    """Make the folder, and move what an earlier run left into `previous-N`, so that the folder describes one run only.

    Returns:
        Where the earlier run is now, or None if there was none.
    """
    left = sorted(path for pattern in _OURS for path in folder.glob(pattern))
    if not left:
        return None
    number = 1
    while (folder / f"previous-{number}").exists():
        number += 1
    aside = folder / f"previous-{number}"
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
    return aside
