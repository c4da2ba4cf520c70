"""A model made fast and the objective that it learns by: the same for a run and for its plan."""

from typing import Any

from torch import nn

from smolora_core.components import Loss, Task
from smolora_core.config import RunConfig
from smolora_core.fast.apply import Speed, make_fast
from smolora_core.plugins.selection import Choices
from smolora_core.training.objective import Objective, make_objective


def make_learning(model: nn.Module, choices: Choices, task: Any, config: RunConfig) -> tuple[Speed, Objective]:
    """Choose how micro-batches are made and computed, and what is made of them.

    Args:
        model: with its adapter, on its device; what is done to it is to be undone afterwards.
        choices: the components of the run.
        task: the implementation.
        config: of the run.
    """
    training, loss = config.training, choices.loss
    record, learned = loss.registered.component, choices.task.registered.component
    assert isinstance(record, Loss) and isinstance(learned, Task)
    wanted = "padded" if config.data.streaming and training.batching == "auto" else training.batching
    speed = make_fast(model, task, record.kind, batching=wanted, kernels=training.fast_kernels)
    objective = make_objective(
        loss.registered,
        loss.build(),
        model,
        predicts=learned.predicts,
        weight_field=config.data.weight_field,
        observe=getattr(task, "observe", None),
        share=speed.sharing.share,
    )
    return speed, objective
