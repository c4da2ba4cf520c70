"""Which modules LoRA adapts: the user's list, else a plugin's record, else the structure of the model.

Every name must match a module, whoever gave it.
"""

import re
from collections.abc import Iterable, Sequence

import attrs

from smolora_core.components import Targets
from smolora_core.errors import ConfigError, Problem, did_you_mean
from smolora_core.model.header import is_head_or_embedding
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
    if problems := [_not_found(pattern, known, where) for pattern in patterns if not _matched(pattern, known)]:
        raise ConfigError.of(problems)
    return tuple(module for module in known if any(matches(pattern, module) for pattern in patterns))


def _not_found(pattern: str, known: Sequence[str], where: str) -> Problem:
    if is_head_or_embedding(pattern):
        return Problem(f"{pattern!r} is a head or an embedding, which is not adapted", where=where, hint="leave it out")
    parts = 2 if "." in pattern else 1
    ends = {".".join(module.split(".")[-parts:]) for module in known if not _OUTSIDE_BLOCKS.search(module)}
    return Problem(f"no layer is named {pattern!r}", where=where, hint=did_you_mean(pattern, ends))


def _matched(pattern: str, modules: Iterable[str]) -> list[str]:
    return [module for module in modules if matches(pattern, module)]


def _record(model_type: str, registry: Registry) -> Registered | None:
    fitting = [
        found
        for found in registry.of_kind(Targets)
        if isinstance(found.component, Targets) and model_type in found.component.model_types
    ]
    speaking = [found for found in fitting if found.origin.tier is Tier.USER or registry.holds_its_name(found)]
    tier = max((found.origin.tier for found in speaking), default=Tier.BUILT_IN)
    highest = [found for found in speaking if found.origin.tier is tier]
    if len(highest) > 1 and tier is not Tier.USER:
        owners = ", ".join(f"{found.component.name!r} ({found.origin})" for found in highest)
        raise ConfigError(
            f"{len(highest)} plugins know {model_type!r}: {owners}", hint="name lora.target_modules, or disable one"
        )
    return highest[-1] if highest else None


def _structural(known: Sequence[str]) -> tuple[str, ...]:
    # What follows the block's number is the same in every block: `self_attn.q_proj`.
    ends: dict[str, list[str]] = {}
    for module in known:
        if _BLOCK.search(module) and not _OUTSIDE_BLOCKS.search(module):
            ends.setdefault(_BLOCK.split(module)[-1], []).append(module)
    inside = {module for modules in ends.values() for module in modules}
    # Where a layer outside the blocks ends alike, only full names are clear.
    return tuple(
        name for end, modules in ends.items() for name in ([end] if inside.issuperset(_matched(end, known)) else modules)
    )


def _ends(known: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for module in known:
        end = module.rsplit(".", 1)[-1]
        counts[end] = counts.get(end, 0) + 1
    return "it has: " + ", ".join(f"{end} ({count})" for end, count in counts.items())
