"""Fill a staging folder: what the writers write, read back, hashed and synced, and the manifest last."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.manifest import MANIFEST, Manifest, Written, is_inside
from smolora_core.components import Writer
from smolora_core.errors import CheckpointError


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
    describe: Callable[[Mapping[str, Written]], Manifest],
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
        files[file] = Written(*disk.digest(staging / file))
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
