"""Attach a LoRA adapter to a base model and verify which modules it adapted."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import peft
import torch
from transformers.pytorch_utils import Conv1D

from smolora_core.components import Task
from smolora_core.config import LoRAConfig, RunConfig
from smolora_core.errors import ConfigError, ModelLoadError, first_line
from smolora_core.lora.modules_to_save import is_inside, outermost, train_in_float32
from smolora_core.lora.options import peft_arguments, resolve_targets, unknown_options
from smolora_core.lora.targets import TargetChoice
from smolora_core.plugins import Registry


@attrs.frozen
class Adapted:
    """A `PeftModel`, the modules it adapts, and the numbers of trainable parameters and of the base model's parameters."""

    model: Any
    targets: TargetChoice
    trainable: int
    total: int


def adaptable_modules(model: Any) -> dict[str, tuple[int, ...]]:
    """The modules LoRA can adapt, with the shapes of their weights: every Linear and Conv1D but the output embeddings."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        # Quantised weights are packed in other shapes.
        name: (module.out_features, module.in_features) if isinstance(module, torch.nn.Linear) else tuple(module.weight.shape)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def trainable_names(model: Any) -> frozenset[str]:
    """Names of the parameters that are trained."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def adapt(
    base: Any,
    base_config: Any,
    config: RunConfig,
    task: Task,
    registry: Registry,
    where: Callable[[str], str],
    path: str,
    heads: Sequence[str],
) -> Adapted:
    """Choose the target modules of a base model and attach an adapter to it, in place.

    `base_config` is the transformers config in the base model's folder; `heads` are trained in full instead of adapted.

    Raises:
        ConfigError: a name matches nothing, or PEFT rejects an option.
        ModelLoadError: as `attach`.
    """
    modules = {name: shape for name, shape in adaptable_modules(base).items() if name not in heads}
    tied = bool(getattr(base_config.get_text_config(), "tie_word_embeddings", False))
    targets = resolve_targets(config.lora, base_config.model_type, modules, registry, where, tied=tied)
    return attach(base, config.lora, targets, task, path, config.seed, modules_to_save=heads)


def attach(
    model: Any,
    config: LoRAConfig,
    targets: TargetChoice,
    task: Task,
    base_path: str,
    seed: int,
    *,
    modules_to_save: Sequence[str] = (),
) -> Adapted:
    """Attach a freshly initialised adapter to a base model, in place.

    The saved adapter names `base_path` as its base. `modules_to_save` are trained in full, in float32, and saved with the
    adapter, besides those that the config names.

    Raises:
        ConfigError: PEFT rejects an option, or a module to save does not exist.
        ModelLoadError: PEFT adapted different modules than chosen, or something would be trained in low precision.
    """
    total = model.num_parameters()
    trained_in_full = outermost((*config.modules_to_save, *modules_to_save), model, task.peft_task_type)
    lora = _lora_config(model, config, targets, task, trained_in_full)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # PEFT uses a name that transformers has deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        torch.manual_seed(seed)
        try:
            adapted: Any = peft.get_peft_model(model, lora)
        except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
            raise ConfigError(f"PEFT rejects these options ({first_line(error)})", where="lora:") from error
    # PEFT fills in the config from the model, with sets whose order differs from process to process.
    saved = adapted.peft_config["default"]
    saved.target_modules = sorted(targets.patterns)
    saved.base_model_name_or_path = base_path
    if isinstance(saved.exclude_modules, set):
        saved.exclude_modules = sorted(saved.exclude_modules)
    if saved.modules_to_save is not None:
        saved.modules_to_save = list(dict.fromkeys(saved.modules_to_save))
    chosen = tuple(module for module in targets.modules if not is_inside(module, saved.modules_to_save or ()))
    if differing := sorted(set(adapted.base_model.targeted_module_names).symmetric_difference(chosen)):
        raise ModelLoadError(f"PEFT adapted different modules than chosen (first: {differing[0]!r})")
    train_in_float32(adapted)
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    if low := [name for name, parameter in trained.items() if parameter.dtype != torch.float32]:
        dtype = str(trained[low[0]].dtype).removeprefix("torch.")
        raise ModelLoadError(
            f"{len(low)} tensors would be trained in {dtype}, which loses small updates (first: {low[0]!r})",
            hint="set model.dtype to float32",
        )
    trainable = sum(parameter.numel() for parameter in trained.values())
    return Adapted(adapted, attrs.evolve(targets, modules=chosen), trainable, total)


def _lora_config(model: Any, config: LoRAConfig, targets: TargetChoice, task: Task, modules_to_save: list[str]) -> Any:
    if problems := unknown_options(config.extra, "lora.extra:"):
        raise ConfigError.of(problems)
    conv1d = {name for name, module in model.named_modules() if isinstance(module, Conv1D)}
    try:
        return peft.LoraConfig(
            target_modules=list(targets.patterns),
            modules_to_save=modules_to_save or None,
            task_type=task.peft_task_type,
            fan_in_fan_out=conv1d.issuperset(targets.modules),
            **peft_arguments(config),
        )
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"peft.LoraConfig rejects these options ({first_line(error)})", where="lora:") from error
