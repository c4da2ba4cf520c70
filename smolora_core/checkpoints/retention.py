"""Which checkpoints of a run may go."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs

from smolora_core.checkpoints.disk import Disk, replace_file
from smolora_core.checkpoints.manifest import Manifest

_AT_LEAST = 2


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen
class Committed:
    """A checkpoint and what its manifest says."""

    place: Path
    manifest: Manifest


@attrs.frozen(kw_only=True)
class Keep:
    """What retention leaves.

    Attributes:
        latest: how many of the latest valid checkpoints; never fewer than two, so that damage to one leaves another.
        metric: what the best one is the best by; None keeps no best.
        greater: whether a greater value is better.
        names: folders that stay whatever else goes: pinned ones, and the one that the run was resumed from.
    """

    latest: int = 2
    metric: str | None = "eval_loss"
    greater: bool = False
    names: frozenset[str] = attrs.field(default=frozenset(), converter=_names)


def best(found: Sequence[Committed], keep: Keep, valid: Callable[[Committed], bool] = lambda each: True) -> Committed | None:
    """Find the valid checkpoint with the best value; one without a finite value is never it, and of equals the earlier is."""
    ranked = [(value, each) for each in found if (value := _value(each, keep)) is not None]
    ranked.sort(key=lambda pair: (pair[0], pair[1].manifest.seq))
    return next((each for _, each in ranked if valid(each)), None)


def expendable(found: Sequence[Committed], keep: Keep, valid: Callable[[Committed], bool]) -> list[Committed]:
    """Choose what may be removed: nothing at all unless the latest one is valid.

    Args:
        found: all checkpoints of the run.
        keep: what to leave.
        valid: reads a checkpoint back; it is asked only about those that decide.
    """
    newest_first = sorted(found, key=lambda each: each.manifest.seq, reverse=True)
    older, kept = newest_first, 0
    while older and kept < max(keep.latest, _AT_LEAST):
        is_valid = valid(older[0])
        if older is newest_first and not is_valid:
            return []
        kept, older = kept + is_valid, older[1:]
    chosen = best(found, keep, valid) if older else None
    return [each for each in reversed(older) if each != chosen and each.place.name not in keep.names]


def _value(each: Committed, keep: Keep) -> float | None:
    value = each.manifest.metrics.get(keep.metric) if keep.metric else None
    if value is None or not math.isfinite(value):
        return None
    return -value if keep.greater else value


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
