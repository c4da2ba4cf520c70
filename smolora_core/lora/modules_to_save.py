"""Modules trained in full beside the adapter, such as heads: always in float32, whatever dtype the base has."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from smolora_core.errors import ConfigError, Problem, did_you_mean
from smolora_core.lora.targets import matches


def is_inside(module: str, outer: Iterable[str]) -> bool:
    """Whether a module is one of the outer modules or inside one, by PEFT's rule."""
    return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in outer)


def outermost(names: Iterable[str], model: nn.Module, task_type: str | None) -> list[str]:
    """Leave out modules inside another of the modules, which PEFT would wrap twice.

    Names are full names or dotted ends of names; PEFT adds modules of its own for some task types.

    Raises:
        ConfigError: a name matches nothing.
    """
    every = [name for name, _ in model.named_modules() if name]
    wanted = list(dict.fromkeys(names))
    children = {name.rsplit(".", 1)[-1] for name in every}
    problems = [
        Problem(f"no module is named {name!r}", where="lora.modules_to_save:", hint=did_you_mean(name, {*every, *children}))
        for name in wanted
        if not any(matches(name, module) for module in every)
    ]
    if problems:
        raise ConfigError.of(problems)
    added = ("classifier", "score") if task_type in ("SEQ_CLS", "TOKEN_CLS") else ()
    return [
        name for name in wanted if name in added or not is_inside(name, [other for other in (*wanted, *added) if other != name])
    ]


def train_in_float32(model: Any) -> None:
    """Cast the modules that a `PeftModel` trains in full, with their inputs, to float32, and outputs back where needed."""
    base = model.get_base_model()
    wrapped = {name: module for name, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)}
    backbone = f"{base.base_model_prefix}."
    rest = [name for name, _ in base.named_parameters() if not (name.startswith(backbone) or is_inside(name, wrapped))]
    for name, wrapper in wrapped.items():
        module = wrapper.modules_to_save["default"]
        dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
        if dtype == torch.float32:
            continue
        module.float()
        module.register_forward_pre_hook(_to_float32, with_kwargs=True)
        # The model's final output stays in float32; anything that the base computes with must have the base's dtype.
        if rest or name.startswith(backbone):
            module.register_forward_hook(_CastOutput(dtype))


def _to_float32(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return _cast(args, torch.float32), _cast(kwargs, torch.float32)


class _CastOutput:
    """Cast an output back; a class rather than a closure, because merging deep-copies the model with its hooks."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return _cast(output, self.dtype)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return type(value)((name, _cast(item, dtype)) for name, item in value.items())
    return tuple(_cast(item, dtype) for item in value) if type(value) is tuple else value
