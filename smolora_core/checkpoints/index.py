"""The list of a run's checkpoints in one file, for people and programs; nothing here ever reads it."""

import json
from collections.abc import Iterable
from pathlib import Path

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.placing import replace_file
from smolora_core.checkpoints.retention import Committed

INDEX = "checkpoint_metadata.json"


def write_index(folder: Path, found: Iterable[Committed], disk: Disk) -> None:
    """Write the index anew, if what the manifests say is not what it says.

    Raises:
        OSError: the file system refused; the index is as it was.
    """
    checkpoints = [
        {
            "step": each.manifest.step,
            "timestamp": each.manifest.created_utc,
            "metrics": dict(each.manifest.metrics),
            "config": dict(each.manifest.config),
            "path": str(each.place),
        }
        for each in found
    ]
    content = (json.dumps({"checkpoints": checkpoints}, indent=1) + "\n").encode("ascii")
    place = folder / INDEX
    kind = disk.kind(place)
    if (kind is None and not checkpoints) or (kind == "file" and disk.read(place) == content):
        return
    replace_file(place, content, disk)
