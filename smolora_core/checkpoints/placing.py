"""Names in a run's folder, and the rename that makes a checkpoint visible.

What is not visible yet, or no more, has a name that begins with a dot, tells its role and the name it belongs to, and ends at
random: `.staging-checkpoint-5-1a2b3c4d` is being written, `.replaced-...` was there before and is put back if a crash falls
between two renames, and `.trash-...` is being removed.
"""

import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Literal

import attrs

from smolora_core.checkpoints.disk import DISK, Disk, Entry
from smolora_core.checkpoints.manifest import Manifest, read, surplus
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


def beside(place: Path, role: Literal["staging", "replaced", "trash"]) -> Path:
    """Make up a name that nothing has, beside the place it belongs to."""
    return place.with_name(f".{role}-{place.name}-{uuid.uuid4().hex[:8]}")


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


def replace_file(place: Path, content: bytes, disk: Disk = DISK) -> None:
    """Write a file so that its name always stands for the whole old or the whole new content.

    Raises:
        OSError: the file system refused; the old content is there.
    """
    staging = beside(place, "staging")
    try:
        disk.write(staging, content)
        disk.sync_file(staging)
        disk.rename(staging, place)
        disk.sync_folder(place.parent)
    except OSError:
        with suppress(OSError):
            disk.remove_tree(staging)
        raise
