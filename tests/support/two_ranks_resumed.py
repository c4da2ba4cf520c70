"""What one of several ranks does for `test_ranks_resume`: `torchrun -m tests.support.two_ranks_resumed BASE FOLDER`."""

import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import attrs
import torch

from smolora_core.errors import TrainingError
from tests.support.injector import fail_at
from tests.support.resumed import LENGTHS, End, Stream, copied, disturb, dropping_out, end_of, make
from tests.support.small_run import cross_entropy, objective, rows

SPLIT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "eval_steps": 1}


def exact(base: Path, folder: Path, **changes: Any) -> list[str]:
    """Resume from every step; list what is different on this rank at the end."""
    whole = make(base, folder / "whole", **SPLIT, **changes)
    expected = end_of(whole, whole.train())
    different = []
    for step in range(1, expected.step + 1):
        again = make(base, folder / f"from-{step}", **SPLIT, **changes)
        disturb()
        if torch.distributed.get_rank() == 0:
            copied(folder / "whole", folder / f"from-{step}", step)
        torch.distributed.barrier()
        found = end_of(again, again.train(resume_from=folder / f"from-{step}" / f"checkpoint-{step}"))
        names = [each.name for each in attrs.fields(End)]
        different += [f"{name} from {step}" for name in names if getattr(found, name) != getattr(expected, name)]
    return different


def leads(base: Path, folder: Path, step: int) -> list[tuple[bool, bool]]:
    """Whether callbacks of this rank are told that it is the first one, before and after a resume."""
    told = []
    for resume in (None, folder / f"checkpoint-{step}"):
        made = make(base, folder, max_steps=step + bool(resume), **SPLIT)
        torch.distributed.barrier()
        made.train(resume_from=resume)
        told.append((made.state.is_world_process_zero, made.state.is_local_process_zero))
    return told


def stopped(base: Path, folder: Path, rank: int, hook: str, step: int) -> tuple[str, int]:
    """Send a signal to the second rank only."""
    made = make(base, folder, **SPLIT)
    if rank == 1:
        made.add_callback(fail_at(step, hook, "SIGTERM"))
    made.train()
    return signal.Signals(made.stopped_by or 0).name, made.state.global_step


def gone_wrong(base: Path, folder: Path, rank: int) -> tuple[str, list[list[float]]]:
    """Let the loss of the second rank alone go wrong after the first step."""
    model, seen = dropping_out(base), []

    def measure(model: Any, of: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(of["weight"].tolist())
        loss = model(input_ids=of["input_ids"]).logits.mean() ** 2
        return loss * (math.nan if rank and len(seen) > 2 else 1), torch.tensor(1.0)

    loss = objective(measure, model, kind="model", columns=("weight",))
    made = make(base, folder, model=model, measure=loss, num_train_epochs=4, held_out=(), **SPLIT)
    try:
        made.train()
    except TrainingError as error:
        return str(error), seen[-2:]
    return "", []


def skipped(base: Path, folder: Path, rank: int) -> list[str]:
    """Let the loss of the only row of the second step go wrong, in half precision; the second rank has no row then."""
    model, said, seen = dropping_out(base), [], []

    def measure(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(len(targets))
        return cross_entropy(logits, targets) * (math.nan if rank == 0 and len(seen) == 3 else 1)

    options = {"train": rows(LENGTHS[:9]), "held_out": (), "max_steps": 3, "extra": {"fp16": True}, **SPLIT}
    made = make(base, folder, model=model, measure=objective(measure, model), **options)
    made.warn = said.append
    made.train()
    return said


def main(base: Path, folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    result = {
        "shuffled": exact(base, folder / "shuffled"),
        "streamed": exact(base, folder / "streamed", train=Stream(), max_steps=5),
        "leads": leads(base, folder / "leads", 2),
        "grouped": exact(base, folder / "grouped", extra={"train_sampling_strategy": "group_by_length"}),
        # Of a last step of five rows, the second rank has one micro-batch.
        "stopped": [stopped(base, folder / at[0], rank, *at) for at in (("on_substep_end", 3), ("on_step_end", 2))],
        "skipped": skipped(base, folder / "skipped", rank),
        "wrong": gone_wrong(base, folder / "wrong", rank),
    }
    (folder / f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    torch.distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
