"""Build the optimizer and the learning rate's schedule from transformers' factories, and restore the schedule."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.optimization import GreedyLR
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_pt_utils import get_parameter_names

# Weight decay leaves out biases and norms, as transformers does.
_NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
# What some optimizers want in place of groups of parameters.
_OWN_GROUPS = ("params", "model", "optimizer_dict")

BY_METRIC = (ReduceLROnPlateau, GreedyLR)
"""Schedules that move after an evaluation, by its metric."""


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
