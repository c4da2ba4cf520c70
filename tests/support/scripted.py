"""Runs whose held-out losses are written down beforehand, one for each step."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from smolora_core import Loss, hookimpl
from smolora_core.training.loop import TrainingLoop
from tests.support.resumed import dropping_out, make
from tests.support.small_run import cross_entropy, objective


class Scripted(TrainerCallback):
    """A token loss that is the script's in evaluations; a callback that follows the steps, and the plugin that offers both."""

    def __init__(self, held_out: Sequence[float]) -> None:
        """Evaluate step 1 as the first loss says, step 2 as the second; before the first step the loss is 9."""
        self._losses, self._step = [9.0, *held_out], 0

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = cross_entropy(logits, targets)
        return losses if torch.is_grad_enabled() else torch.full_like(losses, self._losses[self._step])

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._step = state.global_step

    # A step that has ended is what is evaluated next.
    on_step_end = on_train_begin

    @hookimpl
    def smolora_losses(self) -> list[Loss]:
        return [Loss(name="scripted", summary="what a test says", implementation=self)]

    @hookimpl
    def smolora_callbacks(self, run: Any) -> list[TrainerCallback]:
        return [self]


def scripted(base: Path, folder: Path, held_out: Sequence[float], patience: int | None = None, **changes: Any) -> TrainingLoop:
    """Make the loop of a run that is evaluated after each step, and only saved if that is the best."""
    model, script = dropping_out(base), Scripted(held_out)
    options = {"eval_steps": 1, "save_steps": 500, "max_steps": len(held_out), "per_device_eval_batch_size": 8, **changes}
    made = make(base, folder, model=model, measure=objective(script, model), **options)
    made.add_callback(script)
    if patience is not None:
        made.add_callback(EarlyStoppingCallback(patience))
    return made


def steps_in(folder: Path) -> list[int]:
    """List the steps of a folder's checkpoints."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


def values_of(made: TrainingLoop, name: str) -> dict[int, float]:
    """Return what was logged under a name, by step."""
    return {entry["step"]: entry[name] for entry in made.state.log_history if name in entry}


def while_running(event: str, do: Callable[..., None]) -> TrainerCallback:
    """Make a callback of one event; it gets the callbacks' arguments."""
    callback = TrainerCallback()
    setattr(callback, event, do)
    return callback
