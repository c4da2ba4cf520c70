"""Build the optimizer and the learning rate's schedule from transformers' factories, and restore the schedule."""

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.optimization import GreedyLR
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_pt_utils import get_parameter_names

from smolora_core.checkpoints.optimizer_state import SavedTensors, load_optimizer

# Weight decay leaves out biases and norms, as transformers does.
_NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
# What some optimizers want in place of groups of parameters.
_OWN_GROUPS = ("params", "model", "optimizer_dict")

# Schedules that move after an evaluation, by its metric.
_BY_METRIC = (ReduceLROnPlateau, GreedyLR)


@attrs.define
class Optimization:
    """What updates the parameters: the optimizer, the learning rate's schedule and, with fp16, the gradient scaler."""

    optimizer: Any
    schedule: Any
    scaler: Any = None

    @classmethod
    def build(cls, model: Any, arguments: TrainingArguments, steps: int) -> "Optimization":
        """Build what trains a model for a number of optimizer steps."""
        optimizer = make_optimizer(model, arguments)
        scaler = torch.amp.GradScaler(arguments.device.type) if arguments.fp16 else None
        return cls(optimizer, make_schedule(optimizer, arguments, steps), scaler)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        by_metric = isinstance(self.schedule, _BY_METRIC)
        return float(self.optimizer.param_groups[0]["lr"] if by_metric else self.schedule.get_last_lr()[0])

    def set_mode(self, *, training: bool) -> None:
        """Put an optimizer that averages its parameters in training or evaluation mode."""
        getattr(self.optimizer, "train" if training else "eval", lambda: None)()

    def unscale(self) -> None:
        """Undo the gradient scaler's factor, before gradients are measured and clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)

    def update(self) -> bool:
        """Update the parameters; return whether it happened, or fp16's gradient scaler skipped an overflow."""
        if self.scaler is None:
            self.optimizer.step()
            return True
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return bool(self.scaler.get_scale() >= scale)

    def advance(self) -> None:
        """Move a schedule that follows the steps."""
        if not isinstance(self.schedule, _BY_METRIC):
            self.schedule.step()

    def adjust_to(self, metric: float) -> None:
        """Move a schedule that follows a metric."""
        if isinstance(self.schedule, _BY_METRIC):
            self.schedule.step(metric)

    def states(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the states of the schedule and the scaler."""
        return self.schedule.state_dict(), self.scaler and self.scaler.state_dict()

    def restore(self, saved: SavedTensors, model: Any, scheduler: Mapping[str, Any], scaler: Mapping[str, Any] | None) -> None:
        """Restore the optimizer from a checkpoint's tensors, and the others from their states."""
        load_optimizer(saved, self.optimizer, model)
        restore_schedule(self.schedule, self.optimizer, scheduler)
        if self.scaler is not None and scaler is not None:
            self.scaler.load_state_dict(scaler)


def make_optimizer(model: Any, arguments: TrainingArguments) -> Any:
    """Build the optimizer of a model's trainable parameters."""
    decayed = set(get_parameter_names(model, [nn.LayerNorm], _NOT_DECAYED))
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    groups: Any = [
        {"params": [each for name, each in trained if (name in decayed) is decays], "weight_decay": weight}
        for decays, weight in ((True, arguments.weight_decay), (False, 0.0))
    ]
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, model)
    if is_optimizer_factory(kind):
        return kind()(model, **options)
    for name in _OWN_GROUPS:
        groups = options.pop(name, groups)
    return kind(groups, **options)


def make_schedule(optimizer: Any, arguments: TrainingArguments, steps: int) -> Any:
    """Build the schedule of a run of `steps` optimizer steps."""
    options: Any = arguments.lr_scheduler_kwargs
    return get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=options,
    )


def restore_schedule(schedule: Any, optimizer: Any, saved: Mapping[str, Any]) -> None:
    """Restore a schedule's state.

    The next step gets the rate that a run with this schedule has at that step, even if the saved one was another; only a
    schedule that is not a function of the step alone continues from its own state.
    """
    if isinstance(schedule, LambdaLR):
        pairs = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        rates = [rate * shape(saved["last_epoch"]) for rate, shape in pairs]
        saved = {**saved, "base_lrs": schedule.base_lrs, "_last_lr": rates}
    schedule.load_state_dict(dict(saved))
    for group, rate in zip(optimizer.param_groups, saved["_last_lr"], strict=True):
        group["lr"] = rate
