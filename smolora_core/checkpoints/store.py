"""The commit protocol: a checkpoint appears whole, by rename, or not at all.

Every writer fills a private folder of its own; their files come together in a staging folder beside the final place. The
files are hashed and synced, the manifest is written last, and one rename makes the folder visible. What was there before is
set aside for that moment, and put back if a crash falls into it. The next commit in the same folder removes what a crash
left behind.
"""

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from smolora_core.components import Writer
from smolora_core.errors import CheckpointError

__all__ = ["MANIFEST", "Checkpoint", "commit", "committed_steps", "keep_latest"]

MANIFEST = "manifest.json"
_SCHEMA = 1
_NAME = "checkpoint-"
# Ours by the random end: `.staging-adapter-1a2b3c4d`.
_LEFT_BEHIND = re.compile(r"\.(?P<role>staging|replaced|trash)-(?P<name>.+)-[0-9a-f]{8}")


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What a writer writes.

    Attributes:
        step: optimizer steps taken.
        model: the `PeftModel`.
        tokenizer: of the base model.
        metrics: the latest loss and evaluation.
        config: the run's config as plain values.
    """

    step: int
    model: Any
    tokenizer: Any
    metrics: Mapping[str, float]
    config: Mapping[str, Any]


def commit(checkpoint: Checkpoint, place: Path, writers: Iterable[tuple[str, Writer]]) -> Path:
    """Write a checkpoint and make it visible at `place`, replacing the one that is there.

    Args:
        checkpoint: what to write.
        place: the folder to appear; one without a manifest, which nobody here has written, is renamed and kept.
        writers: names and implementations.

    Returns:
        `place`.

    Raises:
        CheckpointError: the file system refused, or a writer wrote nothing, a link or another writer's file; `place` is as
            it was before.
    """
    staging = _beside(place, "staging")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent)
        staging.mkdir(mode=0o700)
        owners: dict[str, str] = {}
        for name, writer in writers:
            _write(checkpoint, name, writer, staging, owners)
        _write_manifest(checkpoint, staging, sorted(owners))
        _swap(staging, place)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        free = shutil.disk_usage(place.parent).free if place.parent.is_dir() else 0
        raise CheckpointError(
            f"checkpoint of step {checkpoint.step} was not written ({error})",
            where=str(place),
            hint=f"{free:,} bytes are free there",
        ) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return place


def committed_steps(run: Path) -> list[int]:
    """Steps of the checkpoints in a run folder that were committed, ascending."""
    return [step for step, _ in _committed(run)]


def keep_latest(run: Path, count: int) -> None:
    """Remove all but the latest checkpoints that this protocol committed."""
    for _, place in _committed(run)[:-count]:
        _discard(place)


def _committed(run: Path) -> list[tuple[int, Path]]:
    found = ((path.parent.name.removeprefix(_NAME), path.parent) for path in run.glob(f"{_NAME}*/{MANIFEST}"))
    return sorted((int(step), place) for step, place in found if step.isdecimal())


def _write(checkpoint: Checkpoint, name: str, writer: Writer, staging: Path, owners: dict[str, str]) -> None:
    """Let a writer fill an empty folder, and take its files over."""
    private = staging / ".writer"
    private.mkdir(mode=0o700)
    try:
        writer(checkpoint, private)
    except Exception as error:
        error.add_note(f"raised by checkpoint writer {name!r} at step {checkpoint.step}")
        raise
    where = f"checkpoint writer {name!r}"
    files = sorted(path for path in private.rglob("*") if path.is_symlink() or not path.is_dir())
    if not files:
        raise CheckpointError("wrote nothing", where=where)
    for path in files:
        file = path.relative_to(private).as_posix()
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(f"wrote {file!r}, which is no plain file", where=where)
        if file == MANIFEST or file in owners:
            owner = f"checkpoint writer {owners[file]!r}" if file in owners else "the core"
            raise CheckpointError(f"wrote {file!r}, which {owner} writes", where=where)
        owners[file] = name
        (staging / file).parent.mkdir(parents=True, exist_ok=True)
        path.rename(staging / file)
    shutil.rmtree(private)


def _write_manifest(checkpoint: Checkpoint, staging: Path, files: Iterable[str]) -> None:
    entries = {}
    for file in files:
        with (staging / file).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        entries[file] = {"size": (staging / file).stat().st_size, "sha256": digest}
    manifest = {
        "schema": _SCHEMA,
        "step": checkpoint.step,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": entries,
        # JSON knows no NaN.
        "metrics": {name: value if math.isfinite(value) else None for name, value in checkpoint.metrics.items()},
        "config": dict(checkpoint.config),
    }
    with (staging / MANIFEST).open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(manifest, indent=1, ensure_ascii=False))
        stream.flush()
        os.fsync(stream.fileno())
    for folder in (*(path for path in staging.rglob("*") if path.is_dir()), staging):
        _sync_folder(folder)


def _swap(staging: Path, place: Path) -> None:
    replaced = _beside(place, "replaced")
    if place.exists():
        place.rename(replaced)
    try:
        staging.rename(place)
    except OSError:
        if replaced.exists():
            replaced.rename(place)
        raise
    _sync_folder(place.parent)
    # The checkpoint is in place; what cannot be cleared away now, the next commit clears away.
    with suppress(OSError):
        if replaced.exists():
            _discard(replaced, place)


def _discard(folder: Path, place: Path | None = None) -> None:
    """Remove a checkpoint, by rename first so that half of one never looks like a whole; keep what nobody here wrote."""
    place = place or folder
    if (folder / MANIFEST).is_file():
        trash = _beside(place, "trash")
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
    elif folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    else:
        folder.rename(place.with_name(f"{place.name}-before-{uuid.uuid4().hex[:8]}"))


def _sweep(folder: Path) -> None:
    """Put back what a crash left aside, and remove the rest of what it left."""
    for leftover in folder.iterdir():
        if not (match := _LEFT_BEHIND.fullmatch(leftover.name)):
            continue
        place = folder / match["name"]
        if match["role"] != "replaced":
            shutil.rmtree(leftover, ignore_errors=True)
        elif place.exists():
            _discard(leftover, place)
        else:
            leftover.rename(place)


def _beside(place: Path, role: str) -> Path:
    return place.with_name(f".{role}-{place.name}-{uuid.uuid4().hex[:8]}")


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
