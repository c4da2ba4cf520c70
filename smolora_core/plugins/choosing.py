"""From the names in a config to components with their options, all problems at once."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import attrs

from smolora_core.components import CheckpointWriter, Component, Loss, MemoryStrategy, Preprocessor, Task
from smolora_core.config import Resolved, Selection, convert
from smolora_core.errors import ConfigError, PluginError, Problem, SmoLoRAError
from smolora_core.plugins.loading import build
from smolora_core.plugins.registry import Registered, Registry

__all__ = ["Choices", "Chosen", "choose_components", "choose_preprocessors", "default_strategies", "spell_out"]


@attrs.frozen
class Chosen:
    """A component that a run uses, with its options."""

    registered: Registered
    options: Any = None

    @property
    def name(self) -> str:
        return self.registered.component.name

    def build(self) -> Any:
        """Import the implementation and bind the options."""
        return build(self.registered, self.options)

    def __str__(self) -> str:
        return f"{self.name} ({self.registered.origin})"


@attrs.frozen(kw_only=True)
class Choices:
    """Every component of a run but its targets."""

    task: Chosen
    loss: Chosen
    preprocessors: tuple[Chosen, ...]
    writers: tuple[Chosen, ...]
    memory: tuple[Chosen, ...] | None
    """None leaves it to the device."""


def choose_components(resolved: Resolved, registry: Registry, architectures: Sequence[str] | None) -> Choices | None:
    """Resolve every name in a config.

    Args:
        resolved: the config and where its values stand.
        registry: of all plugins.
        architectures: what the model's config says it is, for `task: auto`; None where that is not known yet.

    Returns:
        The choices, or None where the task hangs on architectures that are not known.

    Raises:
        PluginError: unknown or ambiguous names and unusable options, all together.
    """
    config = resolved.config
    problems: list[Problem] = []
    choose = partial(_choose, resolved, registry, problems)
    choose_each = partial(_choose_each, resolved, registry, problems)
    task = choose(Task, Selection(name=config.task), "task") if config.task != "auto" else None
    if config.task == "auto" and architectures is not None:
        try:
            task = Chosen(_infer_task(registry, architectures, resolved.where("model")))
        except SmoLoRAError as error:
            problems.extend(error.problems)
    loss_name = getattr(task.registered.component, "loss", "") if task else ""
    loss = choose(Loss, config.loss or Selection(name=loss_name), "loss") if config.loss or loss_name else None
    preprocessors = choose_each(Preprocessor, config.data.preprocessors, "data.preprocessors")
    writers = choose_each(CheckpointWriter, config.checkpoints.writers, "checkpoints.writers")
    memory = None
    if not isinstance(config.memory, str):
        memory = choose_each(MemoryStrategy, config.memory, "memory")
    elif config.memory == "none":
        memory = ()
    if problems:
        raise PluginError.of(problems)
    if task is None or loss is None:
        return None
    return Choices(task=task, loss=loss, preprocessors=preprocessors, writers=writers, memory=memory)


def choose_preprocessors(resolved: Resolved, registry: Registry) -> tuple[Chosen, ...]:
    """Resolve the names of preprocessors only.

    Raises:
        PluginError: as `choose_components`.
    """
    problems: list[Problem] = []
    path = "data.preprocessors"
    chosen = _choose_each(resolved, registry, problems, Preprocessor, resolved.config.data.preprocessors, path)
    if problems:
        raise PluginError.of(problems)
    return chosen


def spell_out(resolved: Resolved, choices: Choices) -> Resolved:
    """Put what was inferred, and the options nobody gave, into a config, so that it says all that a run is made from."""
    config, sources = resolved.config, dict(resolved.sources)

    def written(chosen: Chosen, selection: Selection | None, path: str) -> Selection:
        options = {} if chosen.options is None else attrs.asdict(chosen.options, recurse=False)
        for option in options:
            sources.setdefault(f"{path}.{option}", f"default of {chosen.registered.origin}")
        return Selection(name=selection.name if selection else chosen.name, options=options)

    def each(chosen: Iterable[Chosen], selections: Iterable[Selection], path: str) -> tuple[Selection, ...]:
        pairs = enumerate(zip(chosen, selections, strict=True))
        return tuple(written(one, selection, f"{path}.{index}") for index, (one, selection) in pairs)

    if config.task == "auto":
        sources["task"] = f"auto: {choices.task}"
    if config.loss is None:
        sources["loss"] = f"default of {choices.task}"
    spelt = attrs.evolve(
        config,
        task=choices.task.name,
        loss=written(choices.loss, config.loss, "loss"),
        data=attrs.evolve(
            config.data, preprocessors=each(choices.preprocessors, config.data.preprocessors, "data.preprocessors")
        ),
        checkpoints=attrs.evolve(
            config.checkpoints, writers=each(choices.writers, config.checkpoints.writers, "checkpoints.writers")
        ),
    )
    return attrs.evolve(resolved, config=spelt, sources=sources)


def default_strategies(registry: Registry, device: str) -> tuple[Chosen, ...]:
    """The memory strategies that `memory: auto` switches on for a device."""
    return tuple(
        Chosen(found)
        for found in registry.of_kind(MemoryStrategy)
        if isinstance(found.component, MemoryStrategy)
        and found.component.default
        and device in found.component.devices
        and registry.holds_its_name(found)
    )


def _choose(
    resolved: Resolved, registry: Registry, problems: list[Problem], kind: type[Component], selection: Selection, path: str
) -> Chosen | None:
    try:
        found = registry.resolve(kind, selection.name, resolved.where(path))
        return Chosen(found, _options(found, selection, resolved, path))
    except SmoLoRAError as error:
        problems.extend(error.problems)
        return None


def _choose_each(
    resolved: Resolved,
    registry: Registry,
    problems: list[Problem],
    kind: type[Component],
    selections: Iterable[Selection],
    path: str,
) -> tuple[Chosen, ...]:
    chosen = [
        _choose(resolved, registry, problems, kind, selection, f"{path}.{index}") for index, selection in enumerate(selections)
    ]
    return tuple(filter(None, chosen))


def _options(found: Registered, selection: Selection, resolved: Resolved, path: str) -> Any:
    component = found.component
    if component.options is not None:
        return convert(
            selection.options, component.options, resolved.sources, path, f"{path} {component.name!r} ({found.origin})"
        )
    if selection.options:
        unknown = next(iter(selection.options))
        where = resolved.where(f"{path}.{unknown}")
        raise ConfigError(f"{component.name!r} ({found.origin}) has no options, so no {unknown!r}", where=where)
    return None


def _infer_task(registry: Registry, architectures: Sequence[str], where: str) -> Registered:
    tasks = [found for found in registry.of_kind(Task) if registry.holds_its_name(found)]
    for architecture in architectures:
        for found in tasks:
            assert isinstance(found.component, Task)
            if architecture.endswith(found.component.architectures):
                return found
    names = ", ".join(found.component.name for found in tasks)
    says = f"its config.json says {', '.join(architectures)}" if architectures else "its config.json names no architecture"
    raise ConfigError(f"the task cannot be told from the model: {says}", where=where, hint=f"set task to one of: {names}")
