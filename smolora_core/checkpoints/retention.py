"""The checkpoints a run has committed: which to keep, which is best, and the index file that lists them."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs

from smolora_core.checkpoints.disk import Disk, replace_file
from smolora_core.checkpoints.manifest import Manifest

INDEX = "checkpoint_metadata.json"
_MINIMUM = 2


@attrs.frozen
class Committed:
    """A committed checkpoint: its folder and its manifest."""

    place: Path
    manifest: Manifest


def _frozenset(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen(kw_only=True)
class Keep:
    """The checkpoints that retention keeps.

    Attributes:
        latest: how many of the latest valid checkpoints; never fewer than two, so that one survives damage to the other.
        metric: the metric that chooses the best checkpoint, which is kept too; None keeps no best.
        greater: whether a greater metric is better.
        names: folders kept in any case, such as the checkpoint the run resumed from.
    """

    latest: int = 2
    metric: str | None = "eval_loss"
    greater: bool = False
    names: frozenset[str] = attrs.field(default=frozenset(), converter=_frozenset)

    @classmethod
    def of(cls, config: Mapping[str, Any], latest: int = _MINIMUM, names: Iterable[str] = ()) -> "Keep":
        """Keep as the config of a run says, given as plain values; one of another version may lack keys."""
        training = config.get("training", {})
        metric = training.get("metric", "loss")
        greater = training.get("extra", {}).get("greater_is_better", greater_is_better(metric))
        return cls(latest=latest, metric=f"eval_{metric}", greater=bool(greater), names=names)


_LOWER = {"loss", "perplexity", "rmse", "mse", "mae", "error", "wer", "cer"}
_GREATER = {"accuracy", "f1", "precision", "recall", "pearson", "spearman", "r2", "auc", "match", "bleu", "rouge", "mcc"}


def greater_is_better(metric: str) -> bool | None:
    """Whether a greater value of a metric is better, by the words of its name; None if they do not tell."""
    words = set(metric.lower().split("_"))
    return False if words & _LOWER else True if words & _GREATER else None


def best(found: Sequence[Committed], keep: Keep, valid: Callable[[Committed], bool] = lambda each: True) -> Committed | None:
    """Return the valid checkpoint with the best finite metric, the earliest of equals; None if there is none.

    After a resume from an earlier checkpoint, steps that an abandoned attempt committed later do not count.
    """
    newest_first = sorted(found, key=lambda each: each.manifest.seq, reverse=True)
    least = accumulate((each.manifest.step for each in newest_first), min, initial=math.inf)
    led = [each for each, step in zip(newest_first, least, strict=False) if each.manifest.step < step]
    ranked = [(value, each) for each in led if (value := _value(each, keep)) is not None]
    ranked.sort(key=lambda pair: (pair[0], pair[1].manifest.seq))
    return next((each for _, each in ranked if valid(each)), None)


def expendable(found: Sequence[Committed], keep: Keep, valid: Callable[[Committed], bool]) -> list[Committed]:
    """Choose the checkpoints to remove, oldest first; none if the latest is not valid.

    `valid` reads a checkpoint back, so it is called only on those that decide.
    """
    older = sorted(found, key=lambda each: each.manifest.seq, reverse=True)
    if not older or not valid(older.pop(0)):
        return []
    kept = 1
    while older and kept < max(keep.latest, _MINIMUM):
        kept += valid(older.pop(0))
    chosen = best(found, keep, valid) if older else None
    return [each for each in reversed(older) if each != chosen and each.place.name not in keep.names]


def write_index(folder: Path, found: Iterable[Committed], disk: Disk) -> None:
    """Write the index of a run's checkpoints, unless it is up to date.

    Raises:
        OSError: the file system refused; the index is unchanged.
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


def _value(each: Committed, keep: Keep) -> float | None:
    """Return the value to rank a checkpoint by, lower is better; None if it has no finite one."""
    value = each.manifest.metrics.get(keep.metric) if keep.metric else None
    if value is None or not math.isfinite(value):
        return None
    return -value if keep.greater else value
