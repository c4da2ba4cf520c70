"""Which modules LoRA adapts: the user's list, else a plugin's record, else the structure of the model.

Every name must match a module, whoever gave it.
"""

import re
from collections.abc import Iterable, Sequence

import attrs

from smolora_core.components import Targets
from smolora_core.errors import ConfigError, Problem, did_you_mean
from smolora_core.plugins import Registered, Registry, Tier

__all__ = ["TargetChoice", "choose_targets", "matches"]

_OUTSIDE_BLOCKS = re.compile(r"(^|\.)(lm_head|embed_out|score|classifier|shared|wte|wpe|\w*embed\w*)(\.|$)")
_BLOCK = re.compile(r"\.\d+\.")


@attrs.frozen
class TargetChoice:
    """What is adapted, and who says so.

    Attributes:
        patterns: names or dotted ends of names, as PEFT takes them.
        modules: the full names they match.
        reason: whose word it was, for a person: `[llama, smolora 0.1.0]`.
    """

    patterns: tuple[str, ...]
    modules: tuple[str, ...]
    reason: str


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern means a module: its full name, or the end of it after a dot."""
    return module == pattern or module.endswith(f".{pattern}")


def choose_targets(
    wanted: str | Sequence[str], model_type: str, modules: Iterable[str], registry: Registry, where: str = ""
) -> TargetChoice:
    """Decide what is adapted.

    Args:
        wanted: `auto`, `all-linear`, or names.
        model_type: the architecture.
        modules: full names of all modules that LoRA could adapt.
        registry: where plugins' records are.
        where: where the user wrote it.

    Raises:
        ConfigError: a name matches nothing, or nothing is left to adapt.
    """
    known = tuple(modules)
    record = _record(model_type, registry) if wanted == "auto" else None
    if record is not None:
        assert isinstance(record.component, Targets)
        patterns, reason = record.component.modules, f"[{record.component.name}, {record.origin}]"
        where = where or f"targets {record.component.name!r} ({record.origin}):"
    elif wanted in ("auto", "all-linear"):
        patterns = _structural(known)
        reason = (
            "[every linear layer in the blocks]"
            if wanted == "all-linear"
            else f"[no plugin knows {model_type!r}: its structure]"
        )
        if not patterns:
            raise ConfigError(
                "no repeated blocks with linear layers were found",
                where=where,
                hint=f"name lora.target_modules; {_ends(known)}",
            )
    else:
        patterns, reason = (wanted,) if isinstance(wanted, str) else tuple(wanted), "[lora.target_modules]"
    return TargetChoice(patterns, _verified(patterns, known, where), reason)


def _verified(patterns: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    if not patterns:
        raise ConfigError("lora.target_modules is an empty list", where=where, hint="write auto, or names")
    ends = {module.rsplit(".", 1)[-1] for module in known if not _OUTSIDE_BLOCKS.search(module)}
    dotted = {".".join(module.rsplit(".", 2)[-2:]) for module in known}
    problems = [
        Problem(f"no layer is named {pattern!r}", where=where, hint=did_you_mean(pattern, dotted if "." in pattern else ends))
        for pattern in patterns
        if not any(matches(pattern, module) for module in known)
    ]
    if problems:
        raise ConfigError.of(problems)
    return tuple(module for module in known if any(matches(pattern, module) for pattern in patterns))


def _record(model_type: str, registry: Registry) -> Registered | None:
    fitting = [
        found
        for found in registry.of_kind(Targets)
        if isinstance(found.component, Targets) and model_type in found.component.model_types
    ]
    winners = [found for found in fitting if found.origin.tier is Tier.USER or registry.holds_its_name(found)]
    return max(winners, key=lambda found: found.origin.tier, default=None)


def _structural(known: Sequence[str]) -> tuple[str, ...]:
    inside = [module for module in known if _BLOCK.search(module) and not _OUTSIDE_BLOCKS.search(module)]
    # What follows the block's number is the same in every block: `self_attn.q_proj`.
    return tuple(dict.fromkeys(_BLOCK.split(module)[-1] for module in inside))


def _ends(known: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for module in known:
        end = module.rsplit(".", 1)[-1]
        counts[end] = counts.get(end, 0) + 1
    return "it has: " + ", ".join(f"{end} ({count})" for end, count in counts.items())
