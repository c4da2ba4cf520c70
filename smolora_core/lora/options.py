"""LoRA's options: module names are checked against the model, and PEFT's own arguments against PEFT."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from smolora_core.config import LoRAConfig
from smolora_core.config.passthrough import unknown_fields
from smolora_core.errors import ConfigError, Problem, SmoLoRAError
from smolora_core.lora.targets import TargetChoice, choose_targets, is_name, matched, not_found
from smolora_core.plugins import Registry

# As in PEFT, the first number in a name is its block's.
_LAYER = re.compile(r"(?:.*?\.)?[^.]+\.(\d+)\.")
_OWN_KEYS = {
    **{name: f"lora.{name}" for name in ("r", "target_modules", "exclude_modules", "layers_to_transform", "rank_pattern")},
    **{name: f"lora.{name}" for name in ("alpha_pattern", "use_rslora", "use_dora", "bias", "modules_to_save")},
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "init_lora_weights": "lora.init",
    "base_model_name_or_path": "model.path",
    "revision": "model.revision",
    "task_type": "task",
}
_IN_PLACE = "it changes the base weights, so the saved adapter would not match the base model"
_NO_EFFECT = {
    **dict.fromkeys(("corda_config", "loftq_config", "lora_ga_config", "kasa_config"), _IN_PLACE),
    **dict.fromkeys(("peft_type", "auto_mapping", "peft_version", "inference_mode"), "PEFT sets it"),
    "eva_config": "it needs a pass over the data before training",
    "fan_in_fan_out": "it is derived from the model's layers",
    "layer_replication": "it creates a different base model",
    "layers_pattern": "blocks are numbered by the first number in a module's name",
    "runtime_config": "it is not saved with the adapter",
}


def resolve_targets(
    lora: LoRAConfig,
    model_type: str,
    modules: Iterable[str],
    registry: Registry,
    where: Callable[[str], str] = lambda key: "",
    *,
    tied: bool = False,
) -> TargetChoice:
    """Choose the target modules by all options of `lora` that name modules.

    `modules` are as for `choose_targets`; `where` maps a key to the place where the user wrote it.

    Raises:
        ConfigError: with every name, pattern and block number that matches nothing.
    """
    every = modules if isinstance(modules, Mapping) else tuple(modules)
    problems: list[Problem] = []
    allowed, choice = set(every), None
    with _collect(problems):
        allowed = set(_in_layers(lora, tuple(every), where("lora.layers_to_transform")))
    with _collect(problems):
        if lora.exclude_modules:
            key = "lora.exclude_modules"
            allowed -= set(matched(lora.exclude_modules, tuple(every), where(key), key))
    with _collect(problems):
        place = where("lora.target_modules")
        choice = choose_targets(lora.target_modules, model_type, every, registry, place, allowed=allowed, tied=tied)
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(lora, key):
            problems += _unmatched(pattern, choice.modules if choice else tuple(every), f"lora.{key}", where(f"lora.{key}"))
    if problems:
        raise ConfigError.of(problems)
    assert choice is not None
    return choice


@contextmanager
def _collect(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except SmoLoRAError as error:
        problems.extend(error.problems)


def peft_arguments(lora: LoRAConfig) -> dict[str, Any]:
    """Convert the options to arguments of `peft.LoraConfig`, without the target modules."""
    exclude = lora.exclude_modules
    if isinstance(exclude, str) and is_name(exclude):
        exclude = (exclude,)
    return {
        "r": lora.r,
        "lora_alpha": _int_if_whole(lora.alpha),
        "lora_dropout": lora.dropout,
        "exclude_modules": (exclude if isinstance(exclude, str) else list(exclude)) or None,
        "layers_to_transform": list(lora.layers_to_transform) or None,
        "rank_pattern": dict(lora.rank_pattern),
        "alpha_pattern": {name: _int_if_whole(alpha) for name, alpha in lora.alpha_pattern.items()},
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "init_lora_weights": True if lora.init == "default" else lora.init,
        "bias": lora.bias,
        **lora.extra,
    }


def unknown_options(extra: Mapping[str, Any], where: str) -> list[Problem]:
    """Check `lora.extra` without importing PEFT: names must exist, be usable here, and have no config key of their own."""
    unusable = {name: ("cannot be used here", hint) for name, hint in _NO_EFFECT.items()}
    return unknown_fields(extra, where, "peft", "tuners/lora/config.py", "LoraConfig", own=_OWN_KEYS, unusable=unusable)


def _in_layers(lora: LoRAConfig, modules: tuple[str, ...], where: str) -> list[str]:
    """Find the modules in the blocks of `layers_to_transform`."""
    if not lora.layers_to_transform:
        return list(modules)
    numbers = {module: int(found[1]) for module in modules if (found := _LAYER.match(module))}
    if missing := sorted(set(lora.layers_to_transform) - set(numbers.values())):
        blocks = f"blocks {min(numbers.values())} to {max(numbers.values())}" if numbers else "no blocks"
        raise ConfigError(
            f"lora.layers_to_transform has {', '.join(map(str, missing))}, but the model has {blocks}", where=where
        )
    return [module for module, number in numbers.items() if number in lora.layers_to_transform]


def _unmatched(pattern: str, modules: Iterable[str], key: str, where: str) -> list[Problem]:
    """Match a pattern of `rank_pattern` or `alpha_pattern` against the adapted modules, as PEFT does."""
    try:
        re.compile(pattern)
    except re.error as error:
        return [Problem(f"{pattern!r} in {key} is not a valid regular expression: {error}", where=where)]
    if any(re.match(rf"(.*\.)?({pattern})$", module) for module in modules):
        return []
    hint = not_found(pattern, modules, where).hint
    return [Problem(f"{pattern!r} in {key} matches no adapted module", where=where, hint=hint)]


def _int_if_whole(number: float) -> float:
    return int(number) if number == int(number) else number
