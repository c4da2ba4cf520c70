"""The checkpoints in a run's folder: each appears complete, by rename, or not at all.

Writers fill a staging folder next to the final place. Their files are synced and hashed, the manifest is written last, and one
rename publishes the folder. A checkpoint that is replaced or no longer kept is renamed before any of its files are removed.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import attrs

from smolora_core.checkpoints.disk import DISK, Disk, Entry, hidden_sibling
from smolora_core.checkpoints.manifest import MANIFEST, read, surplus, verify
from smolora_core.checkpoints.recovery import recover
from smolora_core.checkpoints.retention import INDEX, Committed, Keep, expendable, write_index
from smolora_core.checkpoints.staging import Checkpoint, discard, left_behind, name_of, publish, stage, step_of
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError, Problem

# safetensors and tokenizers are written in Rust and raise their own errors: `I/O error: ... (os error 28)`.
_RUST_OS_ERROR = re.compile(r"\(os error \d+\)")


@attrs.frozen
class Newest:
    """The newest valid checkpoint, if any, and why newer ones were skipped."""

    committed: Committed | None
    skipped: tuple[Problem, ...]


@attrs.define(kw_only=True)
class Store:
    """The checkpoints in a run's folder; whoever commits, retains or sweeps must hold the folder's lock.

    Attributes:
        folder: the run's folder; the first commit creates it.
        run_id: the run's id; other runs' checkpoints are neither listed nor removed. None accepts every run.
        keep: what retention keeps after each commit; None keeps everything.
        warn: receives problems that harm no checkpoint.
        disk: the file system.
    """

    folder: Path
    run_id: str | None
    keep: Keep | None = None
    warn: Callable[[str], object] = lambda text: None
    disk: Disk = DISK
    _verified: dict[tuple[str, int], bool] = attrs.field(factory=dict, init=False)

    def commit(self, checkpoint: Checkpoint, writers: Iterable[tuple[str, Writer]], name: str | None = None) -> Path:
        """Write a checkpoint and publish it; once this returns, it survives a crash or a loss of power.

        Args:
            checkpoint: the checkpoint to write.
            writers: the writers by name.
            name: the folder's name, `checkpoint-N` by default. An earlier checkpoint of this run there is replaced; anything
                else is renamed and kept.

        Raises:
            CheckpointError: the file system refused, or a writer wrote something unusable; the folder is unchanged.
        """
        place = self.folder / (name or name_of(checkpoint.step))
        staging = hidden_sibling(place, "staging")
        try:
            self.disk.make_folders(self.folder)
            seq = self._next_seq()
            stage(checkpoint, writers, staging, self.disk, run_id=self.run_id or "", seq=seq)
            publish(staging, place, self.run_id, self.disk)
        except BaseException as error:
            hint = self._space_hint(staging)
            with suppress(OSError):
                self.disk.remove_tree(staging)
            if isinstance(error, OSError) or _RUST_OS_ERROR.search(str(error)):
                reason = getattr(error, "strerror", None) or error
                raise CheckpointError(f"could not be saved ({reason})", where=str(place), hint=hint) from error
            raise
        # `stage` has just hashed the files after syncing them.
        self._verified[place.name, seq] = True
        self._tidy(place)
        return place

    def found(self) -> list[Committed]:
        """List this run's checkpoints in commit order, without reading their files."""
        return self.look()[0]

    def newest_valid(self) -> Newest:
        """Verify checkpoints, newest first, until one is valid."""
        found, skipped = self.look()
        for each in reversed(found):
            try:
                verify(each.place, self.disk)
            except CheckpointError as error:
                skipped += error.problems
            else:
                return Newest(each, tuple(skipped))
        return Newest(None, tuple(skipped))

    def recover(self) -> list[str]:
        """Clean up the folder after a crash, and describe what was done."""
        done = recover(self.folder, self.run_id, self.disk)
        try:
            write_index(self.folder, self.found(), self.disk)
        except (OSError, CheckpointError) as error:
            done.append(f"could not write {INDEX} ({error})")
        return done

    def retain(self, keep: Keep) -> list[Path]:
        """Remove the checkpoints that `keep` does not keep; nothing if the latest is not valid.

        Raises:
            OSError: the file system refused.
        """
        places = []
        for each in expendable(self.found(), keep, self._is_valid):
            if others := surplus(each.place, each.manifest, self.disk):
                self.warn(f"{each.place.name} is not removed: it contains {others[0]!r}, which is not part of the checkpoint")
            else:
                places.append(each.place)
        discard(places, self.disk)
        return places

    def look(self) -> tuple[list[Committed], list[Problem]]:
        """List this run's checkpoints as `found` does, and why other folders named like one are not among them.

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
            if step_of(entry.path.name) is not None:
                try:
                    found.append(self._committed(entry))
                except CheckpointError as error:
                    # The run may have removed the checkpoint since the folder was listed.
                    problems += error.problems if self.disk.kind(entry.path) else ()
        return sorted(found, key=lambda each: each.manifest.seq), problems

    def _committed(self, entry: Entry) -> Committed:
        where = str(entry.path)
        if entry.kind != "folder":
            raise CheckpointError("is not a regular folder", where=where)
        try:
            manifest = read(entry.path, self.disk)
        except OSError as error:
            raise CheckpointError(f"cannot be read ({error.strerror or error})", where=where) from error
        if self.run_id not in (None, manifest.run_id):
            raise CheckpointError(f"belongs to another run, {manifest.run_id!r}", where=where)
        if name_of(manifest.step) != entry.path.name:
            raise CheckpointError(f"was committed as {name_of(manifest.step)}", where=where)
        return Committed(entry.path, manifest)

    def _next_seq(self) -> int:
        """Count on from every commit in this folder, by any run and under any name."""
        highest = 0
        for entry in self.disk.entries(self.folder):
            if entry.kind == "folder" and self.disk.kind(entry.path / MANIFEST) == "file":
                with suppress(CheckpointError):
                    highest = max(highest, read(entry.path, self.disk).seq)
        return highest + 1

    def _space_hint(self, staging: Path) -> str:
        """Estimate the space a checkpoint needs from what was staged and the one before, and compare with the free space."""
        with suppress(OSError, CheckpointError):
            files = self.disk.tree(staging) if self.disk.kind(staging) else ()
            written = sum(entry.size for entry in files if entry.kind == "file")
            needed = max([written, *(each.manifest.size for each in self.found()[-1:])])
            return f"it needs at least {needed:,} bytes, and {self.disk.free(self.folder):,} are free"
        return ""

    def _is_valid(self, each: Committed) -> bool:
        """Verify a checkpoint once, and remember the result."""
        key = (each.place.name, each.manifest.seq)
        if key not in self._verified:
            try:
                self._verified[key] = verify(each.place, self.disk) is not None
            except CheckpointError as error:
                self.warn(str(error))
                self._verified[key] = False
        return self._verified[key]

    def _tidy(self, place: Path) -> None:
        """Clean up after a commit; failures are warnings, as the commit itself is done."""
        tasks: tuple[tuple[str, Callable[[], object]], ...] = (
            ("could not remove old checkpoints", lambda: self.keep and self.retain(self.keep)),
            (f"could not write {INDEX}", lambda: write_index(self.folder, self.found(), self.disk)),
            ("could not clean up after earlier saves", lambda: self._remove_leftovers(place)),
        )
        for problem, task in tasks:
            try:
                task()
            except (OSError, CheckpointError) as error:
                self.warn(f"{problem} ({error})")

    def _remove_leftovers(self, place: Path) -> None:
        """Remove what interrupted saves left; a replaced folder only if it belongs in `place`, as others may be restored."""
        for entry in self.disk.entries(self.folder):
            left = left_behind(entry)
            if left and (left.role != "replaced" or left.name == place.name):
                self.disk.remove_tree(left.path)
