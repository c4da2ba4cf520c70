"""The commit protocol: a checkpoint appears whole, by rename, or not at all.

Writers fill a private staging folder beside the final place. Its files are hashed and synced, the manifest is written last,
and one rename makes the folder visible. A crash at any point leaves a staging folder, which the next commit in the same
place removes.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from smolora_core.components import Writer
from smolora_core.errors import CheckpointError

__all__ = ["MANIFEST", "Checkpoint", "commit", "committed_steps", "keep_latest"]

MANIFEST = "manifest.json"
_SCHEMA = 1
_STAGING = ".staging-"
_TRASH = ".trash-"
_NAME = "checkpoint-"


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
    """Write a checkpoint and make it visible at `place`, replacing what is there.

    Args:
        checkpoint: what to write.
        place: the folder to appear.
        writers: names and implementations; each writes into the same fresh folder.

    Returns:
        `place`.

    Raises:
        CheckpointError: the file system refused; `place` is as it was before.
    """
    staging = place.parent / f"{_STAGING}{place.name}-{uuid.uuid4().hex[:8]}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent, place.name)
        staging.mkdir(mode=0o700)
        for name, writer in writers:
            writer(checkpoint, staging)
            _require_files(name, staging)
        _write_manifest(checkpoint, staging)
        _swap(staging, place)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        free = shutil.disk_usage(place.parent).free if place.parent.exists() else 0
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
    found = (path.parent.name.removeprefix(_NAME) for path in run.glob(f"{_NAME}*/{MANIFEST}"))
    return sorted(int(step) for step in found if step.isdecimal())


def keep_latest(run: Path, count: int) -> None:
    """Remove all but the latest checkpoints that this protocol committed."""
    for step in committed_steps(run)[:-count]:
        trash = run / f"{_TRASH}{step}-{uuid.uuid4().hex[:8]}"
        (run / f"{_NAME}{step}").rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def _write_manifest(checkpoint: Checkpoint, staging: Path) -> None:
    files = {}
    for path in sorted(path for path in staging.rglob("*") if path.is_file()):
        content = path.read_bytes()
        files[path.relative_to(staging).as_posix()] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        _sync(path)
    manifest = {
        "schema": _SCHEMA,
        "step": checkpoint.step,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "files": files,
        "metrics": dict(checkpoint.metrics),
        "config": dict(checkpoint.config),
    }
    path = staging / MANIFEST
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    _sync(path)
    _sync(staging)


def _swap(staging: Path, place: Path) -> None:
    trash = place.parent / f"{_TRASH}{place.name}-{uuid.uuid4().hex[:8]}"
    if place.exists():
        place.rename(trash)
    try:
        staging.rename(place)
    except OSError:
        if trash.exists():
            trash.rename(place)
        raise
    _sync(place.parent)
    shutil.rmtree(trash, ignore_errors=True)


def _require_files(writer: str, staging: Path) -> None:
    if not any(staging.iterdir()):
        raise CheckpointError(f"checkpoint writer {writer!r} wrote nothing")


def _sweep(folder: Path, name: str) -> None:
    for leftover in (*folder.glob(f"{_STAGING}{name}-*"), *folder.glob(f"{_TRASH}{name}-*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
