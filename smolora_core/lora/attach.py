"""Attach a LoRA adapter to a base model, and account for what was adapted."""

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
from smolora_core.lora.options import peft_arguments, targets_of, unknown_options
from smolora_core.lora.targets import TargetChoice
from smolora_core.plugins import Registry


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
    """Choose what is adapted in a base model, and attach an adapter to it.

    Args:
        base: the base model; it is changed in place.
        base_config: its transformers config, as it stands in its folder.
        config: the run's config.
        task: names PEFT's task type.
        registry: where plugins' records are.
        where: says where the user wrote a key.
        path: what the saved adapter names as its base, found from any working directory.
        heads: modules that are trained whole, and not adapted.

    Raises:
        ConfigError: a name matches nothing, or PEFT refuses an option.
        ModelLoadError: as `attach`.
    """
    modules = {name: shape for name, shape in adaptable_modules(base).items() if name not in heads}
    tied = bool(getattr(base_config.get_text_config(), "tie_word_embeddings", False))
    targets = targets_of(config.lora, base_config.model_type, modules, registry, where, tied=tied)
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
    """Attach a freshly initialised adapter.

    Args:
        model: the base model; it is changed in place.
        config: rank, scale and all other options.
        targets: the modules to adapt.
        task: names PEFT's task type.
        base_path: what the saved adapter names as its base, found from any working directory.
        seed: of the adapter's initial values.
        modules_to_save: further modules to train whole, in float32, and to save with the adapter: new heads.

    Raises:
        ConfigError: PEFT refuses an option, or a module to save does not exist.
        ModelLoadError: PEFT adapted other modules than were chosen, or something would be trained in low precision.
    """
    total = model.num_parameters()
    whole = outermost((*config.modules_to_save, *modules_to_save), model, task.peft_task_type)
    lora = _lora_config(model, config, targets, task, whole)
    lora.base_model_name_or_path = base_path
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Of PEFT's own use of a name that transformers has changed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        torch.manual_seed(seed)
        try:
            adapted: Any = peft.get_peft_model(model, lora)
        except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
            raise ConfigError(f"PEFT refuses it ({first_line(error)})", where="lora:") from error
    # PEFT fills the config from the model; a set in it would come out in another order in every process.
    saved = adapted.peft_config["default"]
    saved.target_modules = sorted(targets.patterns)
    saved.base_model_name_or_path = base_path
    if isinstance(saved.exclude_modules, set):
        saved.exclude_modules = sorted(saved.exclude_modules)
    if saved.modules_to_save is not None:
        saved.modules_to_save = list(dict.fromkeys(saved.modules_to_save))
    # A module that is trained whole is not adapted as well.
    chosen = tuple(module for module in targets.modules if not is_inside(module, saved.modules_to_save or ()))
    found = set(adapted.base_model.targeted_module_names)
    if found != set(chosen):
        differing = sorted(found.symmetric_difference(chosen))
        raise ModelLoadError(f"PEFT adapted other modules than were chosen, {differing[0]!r} among them")
    train_in_float32(adapted)
    trained = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    if low := [name for name, parameter in trained.items() if parameter.dtype != torch.float32]:
        dtype = str(trained[low[0]].dtype).removeprefix("torch.")
        raise ModelLoadError(
            f"{len(low)} tensors would be trained in {dtype}, which loses small updates, {low[0]!r} among them",
            hint="set model.dtype to float32",
        )
    trainable = sum(parameter.numel() for parameter in trained.values())
    return Adapted(adapted, attrs.evolve(targets, modules=chosen), trainable, total)


def _lora_config(model: Any, config: LoRAConfig, targets: TargetChoice, task: Task, whole: list[str]) -> Any:
    if problems := unknown_options(config.extra, "lora.extra:"):
        raise ConfigError.of(problems)
    conv1d = {name for name, module in model.named_modules() if isinstance(module, Conv1D)}
    try:
        return peft.LoraConfig(
            target_modules=list(targets.patterns),
            modules_to_save=whole or None,
            task_type=task.peft_task_type,
            fan_in_fan_out=conv1d.issuperset(targets.modules),
            **peft_arguments(config),
        )
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"peft.LoraConfig refuses it ({first_line(error)})", where="lora:") from error
