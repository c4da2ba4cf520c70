"""Bring a run's folder in order after a crash."""

from pathlib import Path

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.manifest import MANIFEST, Manifest, verify
from smolora_core.checkpoints.staging import Leftover, left_behind, publish, step_of
from smolora_core.errors import CheckpointError


def sweep(folder: Path, run_id: str | None, disk: Disk) -> list[str]:
    """Adopt checkpoints that were complete, put back what was set aside for them, and remove the rest.

    Nobody else may be writing in the folder.

    Returns:
        What was done, a clause each.
    """
    if disk.kind(folder) is None:
        return []
    left = [each for entry in disk.entries(folder) if (each := left_behind(entry))]
    said = []
    # A complete one in staging takes the place of what was set aside for it.
    for each in sorted(left, key=lambda each: ("staging", "replaced", "trash").index(each.role)):
        try:
            said += _ACTIONS[each.role](each, run_id, disk)
        except OSError as error:
            said.append(f"{each.path.name} could not be cleared away ({error.strerror or error})")
    return said


def _staging(left: Leftover, run_id: str | None, disk: Disk) -> list[str]:
    manifest = _valid(left.path, run_id, disk)
    standing = _valid(left.place, run_id, disk)
    if manifest is None or not _fits(left.name, manifest) or (standing is not None and standing.seq > manifest.seq):
        return _remove(left, run_id, disk)
    # The crash may have come before they were synced.
    for entry in disk.tree(left.path):
        (disk.sync_folder if entry.kind == "folder" else disk.sync_file)(entry.path)
    disk.sync_folder(left.path)
    publish(left.path, left.place, run_id, disk)
    return [f"{left.name} was complete and is kept"]


def _replaced(left: Leftover, run_id: str | None, disk: Disk) -> list[str]:
    standing = disk.kind(left.place) is not None
    if _valid(left.place, run_id, disk) or (standing and not _valid(left.path, run_id, disk)):
        return _remove(left, run_id, disk)
    publish(left.path, left.place, run_id, disk)
    return [f"{left.name} was put back"]


def _remove(left: Leftover, run_id: str | None, disk: Disk) -> list[str]:
    disk.remove_tree(left.path)
    return [] if left.role == "trash" else [f"an unfinished {left.name} was removed"]


_ACTIONS = {"staging": _staging, "replaced": _replaced, "trash": _remove}


def _valid(folder: Path, run_id: str | None, disk: Disk) -> Manifest | None:
    if disk.kind(folder / MANIFEST) is None:
        return None
    try:
        manifest = verify(folder, disk)
    except CheckpointError:
        return None
    return manifest if run_id in (None, manifest.run_id) else None


def _fits(name: str, manifest: Manifest) -> bool:
    return step_of(name) in (None, manifest.step)
