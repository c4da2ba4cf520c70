"""What one of several ranks does for `test_same_step`: `torchrun -m tests.support.two_ranks BASE FOLDER`."""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.support.small_run import LOSSES, cross_entropy, load, objective, one_step, rows, trainer


def rates(base: str, folder: Path, size: int) -> list[float]:
    """Train four steps of all rows, the first two of them warm-up; return the rates that are logged."""
    model = load(base)
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 1, "max_steps": 4}
    made = trainer(model, objective(cross_entropy, model), folder, rows(), extra={"warmup_steps": 2}, **split)
    made.train()
    return [entry["learning_rate"] for entry in made.state.log_history if "loss" in entry]


def one_row(base: str, folder: Path) -> list[float]:
    """Train two epochs of a single row and evaluate it, with nothing to do for other ranks; return all losses."""
    model = load(base)
    made = trainer(model, objective(cross_entropy, model), folder, rows()[:1], rows()[:1], num_train_epochs=2)
    made.train()
    return [value for entry in made.state.log_history for name, value in entry.items() if name in ("loss", "eval_loss")]


def main(base: str, folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    steps = {}
    for loss in LOSSES:
        for accumulation in (1, 2):
            gradient, logged = one_step(folder, base, loss, 8 // ranks // accumulation, accumulation)
            save_file(
                gradient,
                folder / f"{loss}-{accumulation}-{rank}.safetensors",
            )
            steps[f"{loss}-{accumulation}"] = logged
    saved: list[int] = []
    model = load(base)
    made = trainer(
        model,
        objective(cross_entropy, model),
        folder,
        rows(),
        held_out=rows()[:7],
        save=lambda step, metrics, state: saved.append(step),
        per_device_eval_batch_size=2,
        per_device_train_batch_size=8 // ranks,
        gradient_accumulation_steps=1,
        max_steps=1,
    )
    evaluated = made.evaluate_now()["eval_loss"]
    made.train()
    result = {"steps": steps, "evaluated": evaluated, "saved": saved, "rates": rates(base, folder, 8 // ranks)}
    result |= {"fewer": one_row(base, folder)}
    (folder / f"{rank}.json").write_text(json.dumps(result), encoding="utf-8")
    # Taking gloo down, with what data parallelism holds of it, aborts or hangs now and then, and nothing is left to do.
    torch.distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
