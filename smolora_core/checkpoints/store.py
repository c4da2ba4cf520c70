"""The checkpoints of a run: each appears whole, by rename, or not at all.

Writers fill a staging folder beside the final place. The files are read back, hashed and synced, the manifest is written
last, and one rename makes the folder visible. A checkpoint that was there before, or that is no longer kept, is renamed before
anything of it is removed. Every operation comes from `disk`, so that tests can stop, fail or forget each of them.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import attrs

from smolora_core.checkpoints.disk import DISK, Disk, beside
from smolora_core.checkpoints.manifest import MANIFEST, FileRecord, Manifest, read, surplus, verify
from smolora_core.checkpoints.recovery import sweep
from smolora_core.checkpoints.retention import Committed, Keep, expendable, write_index
from smolora_core.checkpoints.staging import Checkpoint, discard, left_behind, name_of, publish, stage, step_of
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError, Problem

# What is written in Rust, safetensors and tokenizers, raises its own errors: `I/O error: ... (os error 28)`.
_REFUSED = re.compile(r"\(os error \d+\)")


@attrs.frozen
class Newest:
    """The newest valid checkpoint, if there is one, and why newer ones are not it."""

    committed: Committed | None
    skipped: tuple[Problem, ...]


@attrs.define(kw_only=True)
class Store:
    """The checkpoints in a run's folder; whoever commits or sweeps must hold the run's lock.

    Attributes:
        folder: of the run; the first commit makes it.
        run_id: of the run: checkpoints of another one are neither resumed from nor removed. None takes every run's.
        keep: what retention leaves after each commit; None keeps all.
        warn: told of what went wrong without harm to a checkpoint.
        disk: the file system.
    """

    folder: Path
    run_id: str | None
    keep: Keep | None = None
    warn: Callable[[str], object] = lambda text: None
    disk: Disk = DISK
    _read_back: dict[tuple[str, int], bool] = attrs.field(factory=dict, init=False)

    def commit(self, checkpoint: Checkpoint, writers: Iterable[tuple[str, Writer]], name: str | None = None) -> Path:
        """Write a checkpoint and make it visible; once this returns, it outlasts a crash and a loss of power.

        Args:
            checkpoint: what to write.
            writers: names and implementations.
            name: the folder to appear, `adapter`, or `checkpoint-N` unless given; what stands there is replaced, or renamed and
                kept if this run has not committed it.

        Raises:
            CheckpointError: the file system refused, or a writer wrote what cannot be committed; all is as it was before.
        """
        place = self.folder / (name or name_of(checkpoint.step))
        staging = beside(place, "staging")
        try:
            self.disk.make_folders(self.folder)
            number = self._next_number()
            manifest = stage(checkpoint, writers, staging, lambda files: self._describe(checkpoint, number, files), self.disk)
            publish(staging, place, self.run_id, self.disk)
        except BaseException as error:
            room = self._room(staging)
            with suppress(OSError):
                self.disk.remove_tree(staging)
            if isinstance(error, OSError) or _REFUSED.search(str(error)):
                reason = getattr(error, "strerror", None) or error
                what = f"checkpoint of step {checkpoint.step} was not written ({reason})"
                raise CheckpointError(what, where=str(place), hint=room) from error
            raise
        # Its files were read back once they were synced.
        self._read_back[place.name, manifest.seq] = True
        self._tidy(place)
        return place

    def found(self) -> list[Committed]:
        """List the checkpoints of this run in the order of their commits; their files are not looked at."""
        return self.look()[0]

    def newest_valid(self) -> Newest:
        """Verify checkpoints, the newest first, until one is what was written."""
        found, skipped = self.look()
        for each in reversed(found):
            try:
                verify(each.place, self.disk)
            except CheckpointError as error:
                skipped += error.problems
            else:
                return Newest(each, tuple(skipped))
        return Newest(None, tuple(skipped))

    def sweep(self) -> list[str]:
        """Bring the folder in order after a crash, and say what was done."""
        done = sweep(self.folder, self.run_id, self.disk)
        try:
            write_index(self.folder, self.found(), self.disk)
        except (OSError, CheckpointError) as error:
            done.append(f"the list of checkpoints was not written ({error})")
        return done

    def retain(self, keep: Keep) -> list[Path]:
        """Remove what is not to be kept; the latest is read back first.

        Raises:
            OSError: the file system refused.
        """
        places = []
        for each in expendable(self.found(), keep, self._is_valid):
            if others := surplus(each.place, each.manifest, self.disk):
                self.warn(f"{each.place.name} is kept, because {others[0]!r} in it is not part of it")
            else:
                places.append(each.place)
        discard(places, self.disk)
        return places

    def look(self) -> tuple[list[Committed], list[Problem]]:
        """List the checkpoints of this run as `found` does, and what is named like one and is none of them.

        Raises:
            CheckpointError: the folder cannot be listed.
        """
        try:
            entries = self.disk.entries(self.folder)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise CheckpointError(f"cannot be listed ({error.strerror or error})", where=str(self.folder)) from error
        found: list[Committed] = []
        problems: list[Problem] = []
        for entry in entries:
            if (step := step_of(entry.path.name)) is None:
                continue
            where = str(entry.path)
            if entry.kind != "folder":
                problems.append(Problem("is no plain folder", where=where))
                continue
            try:
                manifest = read(entry.path, self.disk)
            except CheckpointError as error:
                # The run that goes on may have removed it meanwhile.
                problems += error.problems if self.disk.kind(entry.path) else ()
                continue
            except OSError as error:
                problems.append(Problem(f"cannot be read ({error.strerror or error})", where=where))
                continue
            if self.run_id not in (None, manifest.run_id):
                problems.append(Problem(f"belongs to another run, {manifest.run_id!r}", where=where))
            elif manifest.step != step:
                problems.append(Problem(f"was committed as the checkpoint of step {manifest.step}", where=where))
            else:
                found.append(Committed(entry.path, manifest))
        return sorted(found, key=lambda each: each.manifest.seq), problems

    def _next_number(self) -> int:
        """Count on from whatever was committed in this folder, by whichever run and under whichever name."""
        numbers = [0]
        for entry in self.disk.entries(self.folder):
            if entry.kind == "folder" and self.disk.kind(entry.path / MANIFEST) == "file":
                with suppress(CheckpointError):
                    numbers.append(read(entry.path, self.disk).seq)
        return max(numbers) + 1

    def _describe(self, checkpoint: Checkpoint, number: int, files: Mapping[str, FileRecord]) -> Manifest:
        return Manifest(
            run_id=self.run_id or "",
            step=operator.index(checkpoint.step),
            seq=number,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            files=files,
            metrics=checkpoint.metrics,
            config=checkpoint.config,
            facts=checkpoint.facts,
        )

    def _room(self, staging: Path) -> str:
        """Say how much room a checkpoint needs, as far as one can tell, and how much there is."""
        with suppress(OSError, CheckpointError):
            files = self.disk.tree(staging) if self.disk.kind(staging) else ()
            written = sum(entry.size for entry in files if entry.kind == "file")
            needed = max([written, *(each.manifest.size for each in self.found()[-1:])])
            return f"it needs {needed:,} bytes or more, and {self.disk.free(self.folder):,} are free there"
        return ""

    def _is_valid(self, each: Committed) -> bool:
        """Read a checkpoint back, once."""
        key = (each.place.name, each.manifest.seq)
        if key not in self._read_back:
            try:
                verify(each.place, self.disk)
            except CheckpointError as error:
                self.warn(str(error))
                self._read_back[key] = False
            else:
                self._read_back[key] = True
        return self._read_back[key]

    def _tidy(self, place: Path) -> None:
        """Do what follows a commit; none of it can undo the commit."""
        tasks: dict[str, Callable[[], object]] = {
            "the list of checkpoints was not written": lambda: write_index(self.folder, self.found(), self.disk),
            "what earlier saves left was not removed": lambda: self._empty(place),
        }
        if (keep := self.keep) is not None:
            tasks = {"old checkpoints were not removed": lambda: self.retain(keep), **tasks}
        for what, task in tasks.items():
            try:
                task()
            except (OSError, CheckpointError) as error:
                self.warn(f"{what} ({error})")

    def _empty(self, place: Path) -> None:
        """Remove what earlier saves left; of what is set aside to be put back, only what was in this place."""
        for entry in self.disk.entries(self.folder):
            left = left_behind(entry)
            if left and (left.role != "replaced" or left.name == place.name):
                self.disk.remove_tree(left.path)
