"""Attach a LoRA adapter to a base model, and account for what was adapted."""

import warnings
from typing import Any

import attrs
import peft
import torch
from transformers.pytorch_utils import Conv1D

from smolora_core.components import Task
from smolora_core.config import LoRAConfig
from smolora_core.errors import ModelLoadError
from smolora_core.model.targets import TargetChoice

__all__ = ["Adapted", "adaptable_modules", "attach", "trainable_names"]


@attrs.frozen
class Adapted:
    """A base model with its adapter.

    Attributes:
        model: the `PeftModel`.
        targets: what was adapted and who said so.
        trainable: parameters that are trained.
        total: parameters of the base model.
    """

    model: Any
    targets: TargetChoice
    trainable: int
    total: int


def adaptable_modules(model: Any) -> tuple[str, ...]:
    """Names of the modules LoRA can adapt: every Linear and Conv1D but the output embeddings."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return tuple(
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    )


def trainable_names(model: Any) -> frozenset[str]:
    """Names of the parameters that are trained."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def attach(model: Any, config: LoRAConfig, targets: TargetChoice, task: Task, base_path: str, seed: int) -> Adapted:
    """Attach a freshly initialised adapter.

    Args:
        model: the base model; it is changed in place.
        config: rank, scale and dropout.
        targets: the modules to adapt.
        task: names PEFT's task type.
        base_path: what the saved adapter names as its base, found from any working directory.
        seed: of the adapter's initial values.

    Raises:
        ModelLoadError: PEFT adapted other modules than were chosen.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    conv1d = {name for name, module in model.named_modules() if isinstance(module, Conv1D)}
    lora = peft.LoraConfig(
        r=config.r,
        lora_alpha=_whole(config.alpha),  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=list(targets.patterns),
        task_type=task.peft_task_type,
        fan_in_fan_out=conv1d.issuperset(targets.modules),
        base_model_name_or_path=base_path,
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Of PEFT's own use of a name that transformers has changed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        torch.manual_seed(seed)
        adapted: Any = peft.get_peft_model(model, lora)
    # PEFT fills the config from the model; a set in it would come out in another order in every process.
    adapted.peft_config["default"].target_modules = sorted(targets.patterns)
    adapted.peft_config["default"].base_model_name_or_path = base_path
    found = set(adapted.base_model.targeted_module_names)
    if found != set(targets.modules):
        differing = sorted(found.symmetric_difference(targets.modules))
        raise ModelLoadError(f"PEFT adapted other modules than were chosen, {differing[0]!r} among them")
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return Adapted(adapted, targets, trainable, total)


def _whole(alpha: float) -> float:
    return int(alpha) if alpha == int(alpha) else alpha
