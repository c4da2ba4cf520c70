"""Fill a staging folder: what the writers write, read back, hashed and synced, and the manifest last."""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from smolora_core.checkpoints.disk import Disk, Entry, beside
from smolora_core.checkpoints.manifest import MANIFEST, FileRecord, Manifest, is_inside, read, surplus
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError

_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
# What a run commits may be put back; of a file of its own only an unfinished new content can be left.
_COMMITTED = re.compile(r"\.(?P<role>staging|replaced|trash)-(?P<name>checkpoint-(?:0|[1-9][0-9]*)|adapter)-[0-9a-f]{8}")
_CONTENT = re.compile(r"\.(?P<role>staging)-(?P<name>[a-z_]+\.[a-z]+)-[0-9a-f]{8}")


@attrs.frozen
class Leftover:
    """What an interrupted commit has left: its role, and the name it belongs to."""

    path: Path
    role: str
    name: str

    @property
    def place(self) -> Path:
        """Where it belongs."""
        return self.path.with_name(self.name)


def name_of(step: int) -> str:
    """Name the checkpoint of a step."""
    return f"checkpoint-{step}"


def step_of(name: str) -> int | None:
    """Read the step from a checkpoint's name; None if it is no such name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def left_behind(entry: Entry) -> Leftover | None:
    """Say what an entry of a run's folder is the rest of; None if it is nothing that a commit leaves."""
    name = entry.path.name
    match = _COMMITTED.fullmatch(name) or (_CONTENT.fullmatch(name) if entry.kind == "file" else None)
    return Leftover(entry.path, match["role"], match["name"]) if match else None


def is_ours(folder: Path, run_id: str | None, disk: Disk) -> Manifest | None:
    """Read the manifest of a folder that this run has committed and that may be removed: nobody has put a file into it.

    Args:
        folder: where a checkpoint stands.
        run_id: of the run; None takes every run's.
        disk: the file system.

    Raises:
        OSError: it cannot be read now.
    """
    if disk.kind(folder) != "folder":
        return None
    try:
        manifest = read(folder, disk)
    except CheckpointError:
        return None
    return manifest if run_id in (None, manifest.run_id) and not surplus(folder, manifest, disk) else None


def publish(staging: Path, place: Path, run_id: str | None, disk: Disk) -> None:
    """Rename a complete folder to its place; when this returns, it lasts.

    What stands there is removed if the run has committed it, and renamed and kept if not.

    Raises:
        OSError: the file system refused; `place` and `staging` are as they were, unless it refused that too.
    """
    aside: Path | None = None
    ours = False
    if disk.kind(place) is not None:
        ours = is_ours(place, run_id, disk) is not None
        aside = beside(place, "replaced") if ours else place.with_name(f"{place.name}-before-{uuid.uuid4().hex[:8]}")
    try:
        if aside is not None:
            disk.rename(place, aside)
        disk.rename(staging, place)
        disk.sync_folder(place.parent)
    except BaseException:
        with suppress(OSError):
            if disk.kind(staging) is None:
                disk.rename(place, staging)
            if aside is not None and disk.kind(place) is None:
                disk.rename(aside, place)
            # Or what is then removed from the staging folder might be found missing under its name.
            disk.sync_folder(place.parent)
        raise
    if aside is not None:
        with suppress(OSError):
            if ours:
                # Its content may go only under a name that says so.
                trash = beside(place, "trash")
                disk.rename(aside, trash)
                disk.remove_tree(trash)
            elif disk.kind(aside) == "folder" and not disk.entries(aside):
                disk.remove(aside)


def discard(places: list[Path], disk: Disk) -> None:
    """Remove checkpoints, by rename first, so that half of one never looks like a whole.

    Raises:
        OSError: the file system refused; a sweep removes what is left.
    """
    trash = [beside(place, "trash") for place in places]
    for place, name in zip(places, trash, strict=True):
        disk.rename(place, name)
    if trash:
        disk.sync_folder(trash[0].parent)
    for name in trash:
        disk.remove_tree(name)


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What a writer writes.

    Attributes:
        step: optimizer steps taken.
        model: the `PeftModel`.
        tokenizer: of the base model.
        metrics: the latest loss and evaluation.
        config: the run's config as plain values.
        facts: what else the manifest shall say, as plain values.
    """

    step: int
    model: Any
    tokenizer: Any
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    facts: Mapping[str, Any] = attrs.field(factory=dict)


def stage(
    checkpoint: Checkpoint,
    writers: Iterable[tuple[str, Writer]],
    staging: Path,
    describe: Callable[[Mapping[str, FileRecord]], Manifest],
    disk: Disk,
) -> Manifest:
    """Write a whole checkpoint that lasts into a folder that is made for it.

    Args:
        checkpoint: what the writers are given.
        writers: names and implementations.
        staging: the folder; it must not exist.
        describe: makes the manifest of the files.
        disk: the file system.

    Raises:
        CheckpointError: a writer exited, or wrote nothing, a link, another writer's file, or a name that is not usable.
        OSError: the file system refused.
    """
    disk.make_folder(staging)
    owners: dict[str, str] = {}
    for name, writer in writers:
        _write(checkpoint, name, writer, staging, owners, disk)
    files = {}
    for file in sorted(owners):
        disk.sync_file(staging / file)
        files[file] = FileRecord(*disk.digest(staging / file))
    for entry in disk.tree(staging):
        if entry.kind == "folder":
            disk.sync_folder(entry.path)
    manifest = describe(files)
    disk.write(staging / MANIFEST, manifest.encode())
    disk.sync_file(staging / MANIFEST)
    disk.sync_folder(staging)
    return manifest


def _write(checkpoint: Checkpoint, name: str, writer: Writer, staging: Path, owners: dict[str, str], disk: Disk) -> None:
    """Let a writer fill an empty folder, and take its files over."""
    private = staging / ".writer"
    disk.make_folder(private)
    where = f"checkpoint writer {name!r}"
    try:
        writer(checkpoint, private)
    except SystemExit as error:
        raise CheckpointError(f"raised {error!r} at step {checkpoint.step}", where=where) from error
    except Exception as error:
        error.add_note(f"raised by {where} at step {checkpoint.step}")
        raise
    found = [(entry, entry.path.relative_to(private).as_posix()) for entry in disk.tree(private)]
    files = [(entry, file) for entry, file in found if entry.kind != "folder"]
    if not files:
        raise CheckpointError("wrote nothing", where=where)
    for entry, file in files:
        if entry.kind != "file":
            raise CheckpointError(f"wrote {file!r}, which is no plain file", where=where)
        if file == MANIFEST or file in owners:
            owner = f"checkpoint writer {owners[file]!r}" if file in owners else "the core"
            raise CheckpointError(f"wrote {file!r}, which {owner} writes", where=where)
        if not is_inside(file):
            raise CheckpointError(f"wrote {file!r}, a name that not every system takes", where=where)
        owners[file] = name
        target = staging
        for part in Path(file).parts[:-1]:
            target /= part
            if disk.kind(target) is None:
                disk.make_folder(target)
        disk.rename(entry.path, staging / file)
    disk.remove_tree(private)
