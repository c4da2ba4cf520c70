"""`smolora checkpoints`: list, verify and prune the checkpoints of a run."""

import json as json_module
import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from smolora_core.checkpoints.lock import RUN, lock_folder, run_id_of
from smolora_core.checkpoints.manifest import MANIFEST, surplus, verify
from smolora_core.checkpoints.retention import Committed, Keep, best
from smolora_core.checkpoints.store import Store
from smolora_core.cli.flags import Json, note
from smolora_core.errors import CheckpointError, ConfigError, Problem


def list_checkpoints(run: Path, *, json: Json = False) -> None:
    """List the checkpoints of a run in the order in which they were saved.

    Args:
        run: the run's folder.
        json: print JSON.
    """
    found, problems = _look(run)
    chosen = best(found, Keep.of(found[-1].manifest.config)) if found else None
    if json:
        listed = [{**_described(each), "path": str(each.place), "best": each is chosen} for each in found]
        print(json_module.dumps({"checkpoints": listed, "unusable": [str(problem) for problem in problems]}, indent=1))
        return
    for problem in problems:
        note(str(problem))
    for each in found:
        manifest = each.manifest
        shown = {name: "not finite" if value is None else f"{value:.4g}" for name, value in manifest.metrics.items()}
        metrics = "  ".join([*(f"{name} {value}" for name, value in shown.items()), *["best"] * (each is chosen)])
        print(f"step {manifest.step:<8} {manifest.created_utc}  {manifest.size:>13,} bytes  {metrics}".rstrip())
    if not found:
        print(f"no checkpoints in {str(run)!r}")
    else:
        print(f"next     {shlex.join(['smolora', 'checkpoints', 'verify', str(run)])}")


def verify_checkpoints(run: Path, *, json: Json = False) -> int:
    """Read every file of a run's checkpoints and of its final adapter, and list those that are missing or have changed.

    Args:
        run: the run's folder.
        json: print JSON.

    Returns:
        0, or 1 if something is invalid.
    """
    found, problems = _look(run)
    valid, surplus_files = [], []
    for place in (*(each.place for each in found), run / "adapter"):
        if not (place / MANIFEST).exists():
            continue
        try:
            manifest = verify(place)
        except CheckpointError as error:
            # A run in progress may have removed it meanwhile.
            problems += error.problems if place.exists() else ()
        else:
            valid.append(str(place))
            surplus_files += [str(place / name) for name in surplus(place, manifest)]
    if json:
        invalid = [{"path": problem.where, "problem": problem.what} for problem in problems]
        print(json_module.dumps({"valid": valid, "invalid": invalid, "surplus": surplus_files}, indent=1))
        return 1 if problems else 0
    if not valid and not problems:
        print(f"no checkpoints in {str(run)!r}")
        return 0
    for name in surplus_files:
        note(f"{name} is not part of the checkpoint")
    for text in valid:
        print(f"valid    {text}")
    for problem in problems:
        print(f"invalid  {problem}")
    print(f"next     {shlex.join(['smolora', 'checkpoints', 'list', str(run)])}")
    return 1 if problems else 0


def prune(run: Path, *, keep: Annotated[int, Parameter(validator=Number(gte=2))], json: Json = False) -> None:
    """Remove all but the latest checkpoints of a run, and the best one by the run's metric.

    Args:
        run: the run's folder.
        keep: how many of the latest valid ones to keep, two or more.
        json: print JSON.

    Raises:
        CheckpointError: the file system reported an error.
        ConfigError: the run is in progress.
    """
    found, _ = _look(run)
    if run_id_of(run) is None:
        raise ConfigError(f"{str(run)!r} does not identify its run", hint=f"its {RUN} is missing or damaged")
    with lock_folder(run, note) as lock:
        store = Store(folder=run, run_id=lock.run_id, warn=note)
        for text in store.recover():
            note(text)
        try:
            removed = store.retain(Keep.of(found[-1].manifest.config if found else {}, keep))
            store.recover()
        except OSError as error:
            raise CheckpointError(f"could not remove old checkpoints ({error})", where=str(run)) from error
    if json:
        print(json_module.dumps({"removed": [str(place) for place in removed]}, indent=1))
        return
    for place in removed:
        print(f"removed  {place}")
    print(f"next     {shlex.join(['smolora', 'checkpoints', 'list', str(run)])}")


def _look(run: Path) -> tuple[list[Committed], list[Problem]]:
    if not run.is_dir():
        raise ConfigError(f"no folder {str(run)!r}", hint="give the folder that 'smolora train' wrote")
    if (run / MANIFEST).exists():
        raise ConfigError(f"{str(run)!r} is a checkpoint", hint=f"did you mean {str(run.parent)!r}?")
    return Store(folder=run, run_id=run_id_of(run)).look()


def _described(each: Committed) -> dict[str, object]:
    manifest = each.manifest
    return {
        "step": manifest.step,
        "seq": manifest.seq,
        "run_id": manifest.run_id,
        "created_utc": manifest.created_utc,
        "size": manifest.size,
        "metrics": dict(manifest.metrics),
    }
