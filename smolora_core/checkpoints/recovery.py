"""Clean up a run's folder after a crash: adopt complete checkpoints, restore replaced ones, remove the rest."""

from pathlib import Path

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.manifest import MANIFEST, Manifest, verify
from smolora_core.checkpoints.staging import Leftover, left_behind, publish, step_of
from smolora_core.errors import CheckpointError


def recover(folder: Path, run_id: str | None, disk: Disk) -> list[str]:
    """Clean up a folder whose lock the caller holds, and describe each thing done as a clause."""
    if disk.kind(folder) is None:
        return []
    leftovers = [each for entry in disk.entries(folder) if (each := left_behind(entry))]
    done = []
    # Staging first: a complete checkpoint there supersedes the one it was going to replace.
    for each in sorted(leftovers, key=lambda each: ("staging", "replaced", "trash").index(each.role)):
        try:
            done += _ACTIONS[each.role](each, run_id, disk)
        except OSError as error:
            done.append(f"could not clean up {each.path.name} ({error.strerror or error})")
    return done


def _adopt(left: Leftover, run_id: str | None, disk: Disk) -> list[str]:
    staged = _valid(left.path, run_id, disk)
    current = _valid(left.place, run_id, disk)
    if staged is None or step_of(left.name) not in (None, staged.step) or (current is not None and current.seq > staged.seq):
        return _remove(left, run_id, disk)
    # The crash may have come before the files were synced.
    for entry in disk.tree(left.path):
        (disk.sync_folder if entry.kind == "folder" else disk.sync_file)(entry.path)
    disk.sync_folder(left.path)
    publish(left.path, left.place, run_id, disk)
    return [f"recovered {left.name} from an interrupted save"]


def _restore(left: Leftover, run_id: str | None, disk: Disk) -> list[str]:
    occupied = disk.kind(left.place) is not None
    if _valid(left.place, run_id, disk) or (occupied and not _valid(left.path, run_id, disk)):
        return _remove(left, run_id, disk)
    publish(left.path, left.place, run_id, disk)
    return [f"restored {left.name} after an interrupted save"]


def _remove(left: Leftover, run_id: str | None, disk: Disk) -> list[str]:
    disk.remove_tree(left.path)
    return [] if left.role == "trash" else [f"removed an incomplete {left.name}"]


_ACTIONS = {"staging": _adopt, "replaced": _restore, "trash": _remove}


def _valid(folder: Path, run_id: str | None, disk: Disk) -> Manifest | None:
    if disk.kind(folder / MANIFEST) is None:
        return None
    try:
        manifest = verify(folder, disk)
    except CheckpointError:
        return None
    return manifest if run_id in (None, manifest.run_id) else None
