"""Choose the modules LoRA adapts: the user's choice, else a plugin's record, else the structure of the model.

Every name must match a module, wherever it comes from.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from smolora_core.components import Targets
from smolora_core.errors import ConfigError, Problem, did_you_mean
from smolora_core.model.roles import attention_modules, is_head_or_embedding, name_in_block, skip_reason
from smolora_core.plugins import Registered, Registry, Tier

POLICIES = ("auto", "attention", "all-linear")
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


@attrs.frozen
class TargetChoice:
    """The modules to adapt and the reason.

    Attributes:
        patterns: names or dotted ends of names, as PEFT expects them.
        modules: the full names that the patterns match.
        reason: the source of the choice, as it is displayed: `[llama, smolora 0.1.0]`.
        record: the plugin's record that was used, if any.
    """

    patterns: tuple[str, ...]
    modules: tuple[str, ...]
    reason: str
    record: Registered[Targets] | None = None

    @property
    def shown(self) -> tuple[str, ...]:
        """The patterns as they are displayed, without block numbers."""
        return tuple(dict.fromkeys(map(name_in_block, self.patterns)))


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern is a module's full name or the end of it after a dot."""
    return module == pattern or module.endswith(f".{pattern}")


def is_name(text: str) -> bool:
    """Whether a text is a dotted name rather than a regular expression."""
    return _NAME.fullmatch(text) is not None


def choose_targets(
    wanted: str | Sequence[str],
    model_type: str,
    modules: Iterable[str],
    registry: Registry,
    where: str = "",
    *,
    allowed: Collection[str] | None = None,
    tied: bool = False,
) -> TargetChoice:
    """Choose the modules to adapt: `wanted` is `auto`, `attention`, `all-linear`, names, or a regular expression.

    `modules` are the full names of all modules that LoRA can adapt, or a mapping from them to the shapes of their weights.
    Modules that are not `allowed` are excluded; None allows all. `tied` is whether the head is tied to the embeddings.

    Raises:
        ConfigError: a name matches nothing, or every target is excluded.
    """
    every = tuple(modules)
    shapes = modules if isinstance(modules, Mapping) else {}
    layers = tuple(module for module in every if not is_head_or_embedding(module))
    usual = tuple(module for module in layers if skip_reason(module, layers) is None)
    record = _record(model_type, registry) if wanted == "auto" else None
    if record is not None:
        wanted, reason = record.component.modules, f"[{record.component.name}, {record.origin}]"
        found = _matched(wanted, layers, where or f"targets {record.component.name!r} ({record.origin}):", tied)
        # A record describes the text model; a vision tower may have layers of the same names.
        found = tuple(module for module in found if module in usual) or found
    elif wanted == "attention":
        found, reason = attention_modules(usual, shapes), "[attention in the blocks]"
        _require_any(found, "no attention was found in repeated blocks", layers, where)
    elif wanted in ("auto", "all-linear"):
        found, reason = usual, "[every linear layer in the blocks]"
        _require_any(found, "no repeated blocks with linear layers were found", layers, where)
        if wanted == "auto":
            reason = f"[by structure: no plugin knows {model_type!r}]"
    else:
        found, reason = matched(wanted, layers, where, tied=tied), "[lora.target_modules]"
    # PEFT applies the same exclusions before it matches patterns.
    candidates = [module for module in every if allowed is None or module in allowed]
    chosen = tuple(module for module in found if allowed is None or module in allowed)
    if not chosen:
        raise ConfigError("every target module is excluded", where=where)
    names = () if isinstance(wanted, str) else tuple(name for name in wanted if any(matches(name, each) for each in chosen))
    by_name = {module for module in candidates if any(matches(name, module) for name in names)}
    return TargetChoice(names if by_name == set(chosen) else _patterns(chosen, candidates), chosen, reason, record)


def matched(
    wanted: str | Sequence[str], known: Sequence[str], where: str, key: str = "lora.target_modules", *, tied: bool = False
) -> tuple[str, ...]:
    """Match names, or a single regular expression, against full names.

    Raises:
        ConfigError: a name or the expression matches nothing, or the expression is not valid.
    """
    if not isinstance(wanted, str):
        if not wanted:
            raise ConfigError(f"{key} is an empty list", where=where, hint="set it to auto or list names")
        return _matched(wanted, known, where, tied)
    if is_name(wanted):
        return _matched((wanted,), known, where, tied, POLICIES if key == "lora.target_modules" else ())
    try:
        expression = re.compile(wanted)
    except re.error as error:
        raise ConfigError(f"{key} {wanted!r} is not a valid regular expression: {error}", where=where) from error
    found = tuple(module for module in known if expression.fullmatch(module))
    _require_any(found, f"no layer's full name matches {wanted!r}", known, where)
    return found


def not_found(name: str, known: Iterable[str], where: str, others: Iterable[str] = ()) -> Problem:
    """Make the problem of a name that matches nothing, with the closest name that exists as a hint."""
    parts = 2 if "." in name else 1
    ends = {".".join(module.split(".")[-parts:]) for module in known}
    return Problem(f"no layer is named {name!r}", where=where, hint=did_you_mean(name, [*ends, *others]))


def _matched(names: Sequence[str], known: Sequence[str], where: str, tied: bool, others: Iterable[str] = ()) -> tuple[str, ...]:
    found = tuple(module for module in known if any(matches(name, module) for name in names))
    missing = [name for name in names if not any(matches(name, module) for module in found)]
    suggested = [module for module in known if skip_reason(module, known) is None] or known
    if problems := [_head_problem(name, where, tied) or not_found(name, suggested, where, others) for name in missing]:
        raise ConfigError.of(problems)
    return found


def _head_problem(name: str, where: str, tied: bool) -> Problem | None:
    if not is_head_or_embedding(name):
        return None
    what = f"{name!r} is a head or an embedding, which cannot be adapted"
    reason = ": they are tied, and the adapter would be merged into both" if tied else ""
    return Problem(f"{what}{reason}", where=where, hint="remove it")


def _require_any(found: Sequence[str], what: str, known: Sequence[str], where: str) -> None:
    if not found:
        counts = Counter(module.rpartition(".")[-1] for module in known)
        listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
        raise ConfigError(what, where=where, hint=f"set lora.target_modules; the model has: {listed}")


def _record(model_type: str, registry: Registry) -> Registered[Targets] | None:
    """Find the record for an architecture: the user's, else a third party's, else the built-in one."""
    records = [
        found
        for found in registry.of_kind(Targets)
        if model_type in found.component.model_types
        and (found.origin.tier is Tier.USER or registry.is_default_for_its_name(found))
    ]
    tier = max((found.origin.tier for found in records), default=Tier.BUILT_IN)
    highest = [found for found in records if found.origin.tier is tier]
    if len(highest) > 1 and tier is not Tier.USER:
        owners = ", ".join(f"{found.component.name!r} ({found.origin})" for found in highest)
        raise ConfigError(
            f"{len(highest)} plugins know {model_type!r}: {owners}", hint="set lora.target_modules or disable one"
        )
    return highest[-1] if highest else None


def _patterns(chosen: Sequence[str], candidates: Sequence[str]) -> tuple[str, ...]:
    """Name modules by their names within the block, or in full where that would match other modules too."""
    groups: dict[str, list[str]] = {}
    for module in chosen:
        groups.setdefault(name_in_block(module), []).append(module)
    return tuple(
        pattern
        for name, modules in groups.items()
        for pattern in ([name] if set(chosen).issuperset(each for each in candidates if matches(name, each)) else modules)
    )
