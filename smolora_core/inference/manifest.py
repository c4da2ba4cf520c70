"""Compare a folder with the manifest that its checkpoint was committed with."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smolora_core.checkpoints.store import MANIFEST
from smolora_core.errors import CheckpointError, Problem

__all__ = ["verify"]

_HINT = f"take a whole copy, or remove {MANIFEST} if the change is meant"


def verify(folder: Path) -> None:
    """Check that every file in a folder's manifest is there as it was written; a folder without one may hold anything.

    Raises:
        CheckpointError: with a problem for each file that is not.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return
    try:
        files = dict(json.loads(manifest.read_bytes())["files"])
        problems = list(_problems(folder, files))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("is damaged", where=str(manifest), hint=_HINT) from error
    if problems:
        raise CheckpointError.of(problems)


def _problems(folder: Path, files: Mapping[str, Any]) -> Iterator[Problem]:
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            yield Problem("is missing", where=str(file), hint=_HINT)
        elif (size := file.stat().st_size) != entry["size"]:
            yield Problem(f"has {size} bytes, and {entry['size']} were written", where=str(file), hint=_HINT)
        else:
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != entry["sha256"]:
                yield Problem("is not what was written", where=str(file), hint=_HINT)
