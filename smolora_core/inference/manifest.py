"""Compare a folder with the manifest that its checkpoint was committed with."""

from pathlib import Path

import attrs

from smolora_core.checkpoints import manifest
from smolora_core.errors import CheckpointError

_HINT = f"take a whole copy, or remove {manifest.MANIFEST} if the change is meant"


def verify(folder: Path) -> None:
    """Check that every file in a folder's manifest is there as it was written; a folder without one may hold anything.

    Raises:
        CheckpointError: with a problem for each file that is not.
    """
    if not (folder / manifest.MANIFEST).is_file():
        return
    try:
        manifest.verify(folder.resolve())
    except CheckpointError as error:
        raise CheckpointError.of(attrs.evolve(each, hint=_HINT) for each in error.problems) from error
