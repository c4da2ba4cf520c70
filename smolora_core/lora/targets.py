"""Which modules LoRA adapts: the user's choice, else a plugin's record, else the structure of the model.

Every name must match a module, whoever gave it.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from smolora_core.components import Targets
from smolora_core.errors import ConfigError, Problem, did_you_mean
from smolora_core.model.roles import attention_of, end_of, is_head_or_embedding, left_alone
from smolora_core.plugins import Registered, Registry, Tier

POLICIES = ("auto", "attention", "all-linear")
_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


@attrs.frozen
class TargetChoice:
    """What is adapted, and who says so.

    Attributes:
        patterns: names or dotted ends of names, as PEFT takes them.
        modules: the full names they match.
        reason: whose word it was, for a person: `[llama, smolora 0.1.0]`.
        record: the plugin's record that was followed.
    """

    patterns: tuple[str, ...]
    modules: tuple[str, ...]
    reason: str
    record: Registered[Targets] | None = None

    @property
    def shown(self) -> tuple[str, ...]:
        """The patterns for a person: where full names are needed, what follows the blocks' numbers."""
        return tuple(dict.fromkeys(map(end_of, self.patterns)))


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern means a module: its full name, or the end of it after a dot."""
    return module == pattern or module.endswith(f".{pattern}")


def is_name(text: str) -> bool:
    """Whether a text is a dotted name; any other one is a regular expression."""
    return _NAME.fullmatch(text) is not None


def choose_targets(
    wanted: str | Sequence[str],
    model_type: str,
    modules: Iterable[str],
    registry: Registry,
    where: str = "",
    *,
    left: Collection[str] | None = None,
    tied: bool = False,
) -> TargetChoice:
    """Decide what is adapted.

    Args:
        wanted: `auto`, `attention`, `all-linear`, names, or a regular expression that full names match.
        model_type: the architecture.
        modules: full names of all modules that LoRA could adapt, with the shapes of their weights if it is a mapping.
        registry: where plugins' records are.
        where: where the user wrote it.
        left: those of the modules that may be adapted; all of them when None.
        tied: whether the head shares its weights with the embeddings.

    Raises:
        ConfigError: a name matches nothing, or nothing is left to adapt.
    """
    every = tuple(modules)
    shapes = modules if isinstance(modules, Mapping) else {}
    layers = tuple(module for module in every if not is_head_or_embedding(module))
    usual = tuple(module for module in layers if left_alone(module, layers) is None)
    record = _record(model_type, registry) if wanted == "auto" else None
    if record is not None:
        assert isinstance(record.component, Targets)
        wanted, reason = record.component.modules, f"[{record.component.name}, {record.origin}]"
        found = _matched(wanted, layers, where or f"targets {record.component.name!r} ({record.origin}):", tied)
        # A record speaks of a text model, which may stand beside a vision model with layers of the same names.
        found = tuple(module for module in found if module in usual) or found
    elif wanted == "attention":
        found, reason = attention_of(usual, shapes), "[attention in the blocks]"
        _some(found, "no attention was found in repeated blocks", layers, where)
    elif wanted in ("auto", "all-linear"):
        found, reason = usual, "[every linear layer in the blocks]"
        _some(found, "no repeated blocks with linear layers were found", layers, where)
        if wanted == "auto":
            reason = f"[no plugin knows {model_type!r}: its structure]"
    else:
        found, reason = matched(wanted, layers, where, tied=tied), "[lora.target_modules]"
    chosen = tuple(module for module in found if left is None or module in left)
    if not chosen:
        raise ConfigError("every module that would be adapted is excluded", where=where)
    # PEFT excludes by itself, and then sees only the others.
    seen = [module for module in every if left is None or module in left]
    names = () if isinstance(wanted, str) else tuple(name for name in wanted if any(matches(name, each) for each in chosen))
    literal = {module for module in seen if any(matches(name, module) for name in names)}
    return TargetChoice(names if literal == set(chosen) else _spelt(chosen, seen), chosen, reason, record)


def matched(
    wanted: str | Sequence[str], known: Sequence[str], where: str, key: str = "lora.target_modules", *, tied: bool = False
) -> tuple[str, ...]:
    """Find the modules that names, or a regular expression, mean.

    Args:
        wanted: names; one text that is no dotted name is a regular expression.
        known: full names of what may be meant.
        where: where the user wrote it.
        key: what it is called there.
        tied: whether the head shares its weights with the embeddings.

    Raises:
        ConfigError: a name or the expression matches nothing, or the expression is none.
    """
    if not isinstance(wanted, str):
        if not wanted:
            raise ConfigError(f"{key} is an empty list", where=where, hint="write auto, or names")
        return _matched(wanted, known, where, tied)
    if is_name(wanted):
        return _matched((wanted,), known, where, tied, POLICIES if key == "lora.target_modules" else ())
    try:
        expression = re.compile(wanted)
    except re.error as error:
        raise ConfigError(f"{key} {wanted!r} is no regular expression: {error}", where=where) from error
    found = tuple(module for module in known if expression.fullmatch(module))
    _some(found, f"no layer's full name matches {wanted!r}", known, where)
    return found


def not_found(name: str, known: Iterable[str], where: str, others: Iterable[str] = ()) -> Problem:
    """Make the problem of a name that matches nothing, with the nearest one that does."""
    parts = 2 if "." in name else 1
    ends = {".".join(module.split(".")[-parts:]) for module in known}
    return Problem(f"no layer is named {name!r}", where=where, hint=did_you_mean(name, [*ends, *others]))


def _matched(names: Sequence[str], known: Sequence[str], where: str, tied: bool, others: Iterable[str] = ()) -> tuple[str, ...]:
    found = tuple(module for module in known if any(matches(name, module) for name in names))
    missing = [name for name in names if not any(matches(name, module) for module in found)]
    inside = [module for module in known if left_alone(module, known) is None] or known
    problems = [_head(name, where, tied) or not_found(name, inside, where, others) for name in missing]
    if problems:
        raise ConfigError.of(problems)
    return found


def _head(name: str, where: str, tied: bool) -> Problem | None:
    if not is_head_or_embedding(name):
        return None
    why = "is tied to the embeddings, and an adapter on it would be merged into both" if tied else "is not adapted"
    return Problem(f"{name!r} is a head or an embedding, which {why}", where=where, hint="leave it out")


def _some(found: Sequence[str], what: str, known: Sequence[str], where: str) -> None:
    """Refuse to find nothing."""
    if not found:
        counts: dict[str, int] = {}
        for module in known:
            end = module.rsplit(".", 1)[-1]
            counts[end] = counts.get(end, 0) + 1
        listed = ", ".join(f"{end} ({count})" for end, count in counts.items())
        raise ConfigError(what, where=where, hint=f"name lora.target_modules; it has: {listed}")


def _record(model_type: str, registry: Registry) -> Registered[Targets] | None:
    fitting = [
        found
        for found in registry.of_kind(Targets)
        if isinstance(found.component, Targets) and model_type in found.component.model_types
    ]
    speaking = [found for found in fitting if found.origin.tier is Tier.USER or registry.is_default_for_its_name(found)]
    tier = max((found.origin.tier for found in speaking), default=Tier.BUILT_IN)
    highest = [found for found in speaking if found.origin.tier is tier]
    if len(highest) > 1 and tier is not Tier.USER:
        owners = ", ".join(f"{found.component.name!r} ({found.origin})" for found in highest)
        raise ConfigError(
            f"{len(highest)} plugins know {model_type!r}: {owners}", hint="name lora.target_modules, or disable one"
        )
    return highest[-1] if highest else None


def _spelt(chosen: Sequence[str], seen: Sequence[str]) -> tuple[str, ...]:
    """Name modules by their ends; where another layer ends alike, only full names are clear."""
    ends: dict[str, list[str]] = {}
    for module in chosen:
        ends.setdefault(end_of(module), []).append(module)
    return tuple(
        name
        for end, modules in ends.items()
        for name in ([end] if set(chosen).issuperset(each for each in seen if matches(end, each)) else modules)
    )
