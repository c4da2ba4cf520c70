"""The staging folder of a commit: fill it, publish it by one rename, discard what it replaces, recognise what a crash left.

While a commit is in progress, everything it touches has a hidden name that tells its role and its place; see `hidden_sibling`.
"""

import operator
import re
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from smolora_core.checkpoints.disk import Disk, Entry, hidden_sibling
from smolora_core.checkpoints.manifest import MANIFEST, FileRecord, Manifest, is_inside, read, surplus
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError

_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
_HIDDEN_FOLDER = re.compile(r"\.(?P<role>staging|replaced|trash)-(?P<name>checkpoint-(?:0|[1-9][0-9]*)|adapter)-[0-9a-f]{8}")
# Files are replaced in one rename, so only their staging can be left over.
_HIDDEN_FILE = re.compile(r"\.(?P<role>staging)-(?P<name>[a-z_]+\.[a-z]+)-[0-9a-f]{8}")


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What checkpoint writers write.

    Attributes:
        step: optimizer steps taken.
        model: the `PeftModel`.
        tokenizer: the base model's tokenizer.
        metrics: the latest loss and evaluation.
        config: the run's config as plain values.
        facts: further fields for the manifest, as plain values.
    """

    step: int
    model: Any
    tokenizer: Any
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    facts: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Leftover:
    """Something an interrupted commit left behind: its role, and the name of the place it belongs to."""

    path: Path
    role: str
    name: str

    @property
    def place(self) -> Path:
        """The path it belongs to."""
        return self.path.with_name(self.name)


def stage(
    checkpoint: Checkpoint, writers: Iterable[tuple[str, Writer]], staging: Path, disk: Disk, *, run_id: str, seq: int
) -> None:
    """Write a complete checkpoint durably into a new staging folder, the manifest last.

    Raises:
        CheckpointError: a writer exited, or wrote nothing, a link, another writer's file, or an unusable name.
        OSError: the file system refused.
    """
    disk.make_folder(staging)
    owners: dict[str, str] = {}
    for name, writer in writers:
        _run_writer(checkpoint, name, writer, staging, owners, disk)
    files = {}
    for file in sorted(owners):
        disk.sync_file(staging / file)
        files[file] = FileRecord(*disk.digest(staging / file))
    for entry in disk.tree(staging):
        if entry.kind == "folder":
            disk.sync_folder(entry.path)
    manifest = Manifest(
        run_id=run_id,
        step=operator.index(checkpoint.step),
        seq=seq,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        files=files,
        metrics=checkpoint.metrics,
        config=checkpoint.config,
        facts=checkpoint.facts,
    )
    disk.write(staging / MANIFEST, manifest.encode())
    disk.sync_file(staging / MANIFEST)
    disk.sync_folder(staging)


def publish(staging: Path, place: Path, run_id: str | None, disk: Disk) -> None:
    """Rename a complete staging folder to its place, durably.

    A checkpoint of this run in that place is removed; anything else there is renamed and kept.

    Raises:
        OSError: the file system refused; both paths are as before, unless undoing failed too.
    """
    aside: Path | None = None
    removable = False
    if disk.kind(place) is not None:
        removable = _is_removable(place, run_id, disk)
        unused = place.with_name(f"{place.name}-before-{uuid.uuid4().hex[:8]}")
        aside = hidden_sibling(place, "replaced") if removable else unused
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
            # Otherwise, after a crash, files removed from staging could be missing from the published folder.
            disk.sync_folder(place.parent)
        raise
    if aside is not None:
        with suppress(OSError):
            if removable:
                # Renamed first: half-removed content must not be restored by a later sweep.
                trash = hidden_sibling(place, "trash")
                disk.rename(aside, trash)
                disk.remove_tree(trash)
            elif disk.kind(aside) == "folder" and not disk.entries(aside):
                disk.remove(aside)


def discard(places: list[Path], disk: Disk) -> None:
    """Remove checkpoints, renaming them first so that a half-removed one never looks complete.

    Raises:
        OSError: the file system refused; a sweep removes the rest.
    """
    trash = [hidden_sibling(place, "trash") for place in places]
    for place, name in zip(places, trash, strict=True):
        disk.rename(place, name)
    if trash:
        disk.sync_folder(trash[0].parent)
    for name in trash:
        disk.remove_tree(name)


def name_of(step: int) -> str:
    """Return the folder name of a step's checkpoint."""
    return f"checkpoint-{step}"


def step_of(name: str) -> int | None:
    """Parse the step from a checkpoint's folder name; None for any other name."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def left_behind(entry: Entry) -> Leftover | None:
    """Recognise an entry of a run's folder that only an interrupted commit can have left; None for any other."""
    name = entry.path.name
    match = _HIDDEN_FOLDER.fullmatch(name) or (_HIDDEN_FILE.fullmatch(name) if entry.kind == "file" else None)
    return Leftover(entry.path, match["role"], match["name"]) if match else None


def _run_writer(checkpoint: Checkpoint, name: str, writer: Writer, staging: Path, owners: dict[str, str], disk: Disk) -> None:
    """Let a writer fill an empty private folder, then move its files into the staging folder."""
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
    written = [entry for entry in disk.tree(private) if entry.kind != "folder"]
    if not written:
        raise CheckpointError("wrote nothing", where=where)
    for entry in written:
        file = entry.path.relative_to(private).as_posix()
        if entry.kind != "file":
            raise CheckpointError(f"wrote {file!r}, which is not a regular file", where=where)
        if file == MANIFEST or file in owners:
            owner = f"checkpoint writer {owners[file]!r}" if file in owners else "the core"
            raise CheckpointError(f"wrote {file!r}, which belongs to {owner}", where=where)
        if not is_inside(file):
            raise CheckpointError(f"wrote {file!r}, which is not a portable file name", where=where)
        owners[file] = name
        target = staging / file
        disk.make_folders(target.parent)
        disk.rename(entry.path, target)
    disk.remove_tree(private)


def _is_removable(folder: Path, run_id: str | None, disk: Disk) -> bool:
    """Check that a folder is a checkpoint of this run without any file of the user's; a run id of None means any run."""
    if disk.kind(folder) != "folder":
        return False
    try:
        manifest = read(folder, disk)
    except CheckpointError:
        return False
    return run_id in (None, manifest.run_id) and not surplus(folder, manifest, disk)
