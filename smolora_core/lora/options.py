"""LoRA's options: what they say about modules is held against the model, and what goes to PEFT against PEFT."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from smolora_core.config import LoRAConfig
from smolora_core.config.passthrough import unknown_fields
from smolora_core.errors import ConfigError, Problem, SmoLoRAError
from smolora_core.lora.targets import TargetChoice, choose_targets, is_name, matched, not_found
from smolora_core.plugins import Registry

# The number of a block is the first one in a name, as for PEFT.
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
_IN_PLACE = "it changes the base weights, and the saved adapter would not fit the base"
_NO_EFFECT = {
    **dict.fromkeys(("corda_config", "loftq_config", "lora_ga_config", "kasa_config"), _IN_PLACE),
    **dict.fromkeys(("peft_type", "auto_mapping", "peft_version", "inference_mode"), "PEFT fills it in"),
    "eva_config": "it looks at data before training, which a run does not do",
    "fan_in_fan_out": "the model's layers decide it",
    "layer_replication": "it makes another base model",
    "layers_pattern": "the first number in a module's name is its block's",
    "runtime_config": "it is not saved with the adapter",
}


def targets_of(
    lora: LoRAConfig,
    model_type: str,
    modules: Iterable[str],
    registry: Registry,
    where: Callable[[str], str] = lambda key: "",
    *,
    tied: bool = False,
) -> TargetChoice:
    """Decide what is adapted, with everything that the config says about it.

    Args:
        lora: the config's section.
        model_type: the architecture.
        modules: as for `choose_targets`.
        registry: where plugins' records are.
        where: says where the user wrote a key: `resolved.where`.
        tied: whether the head shares its weights with the embeddings.

    Raises:
        ConfigError: with everything that fits nothing.
    """
    every = modules if isinstance(modules, Mapping) else tuple(modules)
    problems: list[Problem] = []

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except SmoLoRAError as error:
            problems.extend(error.problems)
            return None

    left = set(attempt(lambda: _in_layers(lora, tuple(every), where("lora.layers_to_transform"))) or every)
    if lora.exclude_modules:
        place = where("lora.exclude_modules")
        left -= set(attempt(lambda: matched(lora.exclude_modules, tuple(every), place, "lora.exclude_modules")) or ())
    wanted, place = lora.target_modules, where("lora.target_modules")
    choice = attempt(lambda: choose_targets(wanted, model_type, every, registry, place, left=left, tied=tied))
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(lora, key):
            problems += _unmatched(pattern, choice.modules if choice else tuple(every), f"lora.{key}", where(f"lora.{key}"))
    if problems:
        raise ConfigError.of(problems)
    assert isinstance(choice, TargetChoice)
    return choice


def peft_arguments(lora: LoRAConfig) -> dict[str, Any]:
    """Spell the options as `peft.LoraConfig` does, but for the targets."""
    exclude = lora.exclude_modules
    if isinstance(exclude, str) and is_name(exclude):
        exclude = (exclude,)
    return {
        "r": lora.r,
        "lora_alpha": _whole(lora.alpha),
        "lora_dropout": lora.dropout,
        "exclude_modules": (exclude if isinstance(exclude, str) else list(exclude)) or None,
        "layers_to_transform": list(lora.layers_to_transform) or None,
        "rank_pattern": dict(lora.rank_pattern),
        "alpha_pattern": {name: _whole(alpha) for name, alpha in lora.alpha_pattern.items()},
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "init_lora_weights": True if lora.init == "default" else lora.init,
        "bias": lora.bias,
        **lora.extra,
    }


def unknown_options(extra: Mapping[str, Any], where: str) -> list[Problem]:
    """Check `lora.extra` without importing PEFT: names must exist, have an effect here, and no key of their own."""
    unusable = {name: ("cannot be used here", hint) for name, hint in _NO_EFFECT.items()}
    return unknown_fields(extra, where, "peft", "tuners/lora/config.py", "LoraConfig", own=_OWN_KEYS, unusable=unusable)


def _in_layers(lora: LoRAConfig, modules: tuple[str, ...], where: str) -> list[str]:
    """Find the modules in the blocks that `layers_to_transform` counts."""
    if not lora.layers_to_transform:
        return list(modules)
    numbers = {module: int(found[1]) for module in modules if (found := _LAYER.match(module))}
    wrong = sorted(set(lora.layers_to_transform) - set(numbers.values()))
    if wrong:
        has = f"{min(numbers.values())} to {max(numbers.values())}" if numbers else "none"
        listed = ", ".join(map(str, wrong))
        raise ConfigError(f"lora.layers_to_transform has {listed}, and the model has blocks {has}", where=where)
    return [module for module, number in numbers.items() if number in lora.layers_to_transform]


def _unmatched(pattern: str, modules: Iterable[str], key: str, where: str) -> list[Problem]:
    """Hold a key of `rank_pattern` or `alpha_pattern` against the adapted modules, as PEFT does."""
    try:
        re.compile(pattern)
    except re.error as error:
        return [Problem(f"{pattern!r} in {key} is no regular expression: {error}", where=where)]
    if any(re.match(rf"(.*\.)?({pattern})$", module) for module in modules):
        return []
    problem = not_found(pattern, modules, where)
    return [Problem(f"{pattern!r} in {key} matches no adapted module", where=where, hint=problem.hint)]


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
