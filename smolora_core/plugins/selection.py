"""Resolve the names in a config to components with their options, reporting all problems at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import Any, Generic

import attrs

from smolora_core.components import CheckpointWriter, Component, Loss, MemoryStrategy, Preprocessor, Task
from smolora_core.config import DataConfig, Resolved, Selection, convert
from smolora_core.errors import ConfigError, PluginError, Problem, SmoLoRAError
from smolora_core.plugins.discovery import Origin
from smolora_core.plugins.loading import build
from smolora_core.plugins.registry import C, Kind, Registered, Registry
from smolora_core.plugins.source_digest import code_of


@attrs.frozen
class Chosen(Generic[C]):
    """A component that a run uses.

    Attributes:
        options: an instance of the component's options class, or None for the defaults.
        reason: why it was chosen, if the user did not name it.
    """

    registered: Registered[C]
    options: Any = None
    reason: str = ""

    @property
    def component(self) -> C:
        return self.registered.component

    @property
    def origin(self) -> Origin:
        return self.registered.origin

    @property
    def name(self) -> str:
        return self.component.name

    @cached_property
    def code(self) -> str | None:
        """A digest of its source; cached because it reads whole packages."""
        return code_of(self.registered)

    def build(self) -> Any:
        """Import the implementation and bind the options."""
        return build(self.registered, self.options)

    @property
    def title(self) -> str:
        return f"{self.name} ({self.origin})"

    def __str__(self) -> str:
        return f"{self.title}  {self.reason}" if self.reason else self.title


@attrs.frozen(kw_only=True)
class Choices:
    """Every component of a run except its targets."""

    task: Chosen[Task]
    loss: Chosen[Loss]
    preprocessors: tuple[Chosen[Preprocessor], ...]
    writers: tuple[Chosen[CheckpointWriter], ...]
    memory: tuple[Chosen[MemoryStrategy], ...] | None
    """None for the device's defaults."""

    def numeric_columns(self, weight_field: str | None) -> tuple[str, ...]:
        """Name the numeric columns a run reads: those the loss declares, and the row weights."""
        return tuple(dict.fromkeys(filter(None, (*self.loss.component.columns, weight_field))))


def choose_components(
    resolved: Resolved,
    registry: Registry,
    architectures: Sequence[str] | None,
    look: Callable[[], tuple[str, str]] = lambda: ("", ""),
) -> Choices | None:
    """Resolve every name in a config, and infer the task and the loss where the config leaves them open.

    The task depends on the architectures in the model's config and on the rows: `look` returns the kind of their labels
    (`labelled`, `several`, `scored`, `tokens`, or nothing) and the evidence, and is called at most once, only if needed.
    Return None if the architectures are needed and not known yet.

    Raises:
        PluginError: every unknown or ambiguous name and every unusable option.
    """
    config, look = resolved.config, cache(look)
    resolver = _Resolver(resolved, registry)
    task = resolver.one(Task, Selection(name=config.task), "task") if config.task != "auto" else None
    if config.task == "auto" and architectures is not None:
        try:
            task = _infer_task(registry, architectures, config.data, look, resolved.where("model"))
        except SmoLoRAError as error:
            resolver.problems.extend(error.problems)
    default = Selection(name=_default_loss(task.component, config.data, look)) if task else None
    loss = resolver.one(Loss, selection, "loss") if (selection := config.loss or default) else None
    if loss is not None and default is not None and task is not None:
        # A missing default loss is an error only for a config that relies on it.
        with suppress(SmoLoRAError):
            usual = registry.resolve(Loss, default.name).component
            resolver.problems.extend(_mismatch(loss, usual, task, registry, resolved))
    if config.training.sample_prompts and task is not None and not task.component.writes:
        what = f"training.sample_prompts needs a task that writes text, and {task.title} does not"
        resolver.problems.append(Problem(what, where=resolved.where("training.sample_prompts"), hint="remove it"))
    preprocessors = resolver.each(Preprocessor, config.data.preprocessors, "data.preprocessors")
    writers = resolver.each(CheckpointWriter, config.checkpoints.writers, "checkpoints.writers")
    memory = None
    if not isinstance(config.memory, str):
        memory = resolver.each(MemoryStrategy, config.memory, "memory")
    elif config.memory == "none":
        memory = ()
    resolver.raise_problems()
    if task is None or loss is None:
        return None
    return Choices(task=task, loss=loss, preprocessors=preprocessors, writers=writers, memory=memory)


def choose_preprocessors(resolved: Resolved, registry: Registry) -> tuple[Chosen[Preprocessor], ...]:
    """Resolve the names of preprocessors only, with the errors of `choose_components`."""
    resolver = _Resolver(resolved, registry)
    chosen = resolver.each(Preprocessor, resolved.config.data.preprocessors, "data.preprocessors")
    resolver.raise_problems()
    return chosen


def fill_in_choices(resolved: Resolved, choices: Choices) -> Resolved:
    """Write inferred components and the defaults of options into a config, so that it describes the run completely."""
    config, sources = resolved.config, dict(resolved.sources)

    def complete(chosen: Chosen[Component], selection: Selection | None, path: str) -> Selection:
        options = {} if chosen.options is None else attrs.asdict(chosen.options, recurse=False)
        for option in options:
            sources.setdefault(f"{path}.{option}", f"default of {chosen.origin}")
        return Selection(name=selection.name if selection else chosen.name, options=options)

    def each(chosen: Iterable[Chosen[Component]], selections: Iterable[Selection], path: str) -> tuple[Selection, ...]:
        pairs = enumerate(zip(chosen, selections, strict=True))
        return tuple(complete(one, selection, f"{path}.{index}") for index, (one, selection) in pairs)

    if config.task == "auto":
        sources["task"] = f"auto: {choices.task}"
    if config.loss is None:
        sources["loss"] = f"default of {choices.task.title}"
    preprocessors = each(choices.preprocessors, config.data.preprocessors, "data.preprocessors")
    writers = each(choices.writers, config.checkpoints.writers, "checkpoints.writers")
    completed = attrs.evolve(
        config,
        task=choices.task.name,
        loss=complete(choices.loss, config.loss, "loss"),
        data=attrs.evolve(config.data, preprocessors=preprocessors),
        memory=config.memory if isinstance(config.memory, str) else each(choices.memory or (), config.memory, "memory"),
        checkpoints=attrs.evolve(config.checkpoints, writers=writers),
    )
    return attrs.evolve(resolved, config=completed, sources=sources)


def default_strategies(registry: Registry, device: str) -> tuple[Chosen[MemoryStrategy], ...]:
    """List the memory strategies that `memory: auto` enables on a device."""
    strategies = registry.defaults(MemoryStrategy)
    return tuple(Chosen(found) for found in strategies if found.component.default and device in found.component.devices)


@attrs.frozen
class _Resolver:
    """Resolves selections and collects the problems."""

    resolved: Resolved
    registry: Registry
    problems: list[Problem] = attrs.field(factory=list)

    def one(self, kind: type[Kind], selection: Selection, path: str) -> Chosen[Kind] | None:
        try:
            found = self.registry.resolve(kind, selection.name, self.resolved.where(path))
            return Chosen(found, self._options(found, selection, path))
        except SmoLoRAError as error:
            self.problems.extend(error.problems)
            return None

    def each(self, kind: type[Kind], selections: Iterable[Selection], path: str) -> tuple[Chosen[Kind], ...]:
        chosen = [self.one(kind, selection, f"{path}.{index}") for index, selection in enumerate(selections)]
        return tuple(filter(None, chosen))

    def raise_problems(self) -> None:
        if self.problems:
            raise PluginError.of(self.problems)

    def _options(self, found: Registered[Component], selection: Selection, path: str) -> Any:
        component, options = found.component, selection.options
        if component.options is not None:
            label = f"{path} {component.name!r} ({found.origin})"
            return convert(options, component.options, self.resolved.sources, path, label)
        if options:
            unknown = next(iter(options))
            where = self.resolved.where(f"{path}.{unknown}")
            raise ConfigError(f"{component.name!r} ({found.origin}) takes no options, got {unknown!r}", where=where)
        return None


def _default_loss(task: Task, data: DataConfig, look: Callable[[], tuple[str, str]]) -> str:
    several_columns = isinstance(data.label_field, tuple) and len(data.label_field) > 1
    if task.multi_label_loss and (several_columns or look()[0] == "multi-label"):
        return task.multi_label_loss
    return task.loss


def _mismatch(loss: Chosen[Loss], usual: Loss, task: Chosen[Task], registry: Registry, resolved: Resolved) -> Iterator[Problem]:
    """Report a loss of a kind that the task cannot use, which is any but `model` and the kind of the task's usual loss."""
    kind = loss.component.kind
    if kind == "model":
        if resolved.config.data.weight_field:
            what = f"loss {loss.name!r} is of kind model and has to weight rows itself"
            hint = "declare the column in the loss's columns instead"
            yield Problem(what, where=resolved.where("data.weight_field"), hint=hint)
    elif kind != usual.kind:
        losses = (found.component for found in registry.defaults(Loss))
        compatible = ", ".join(each.name for each in losses if each.kind in (usual.kind, "model"))
        what = f"loss {loss.title} is of kind {kind}, but {task.title} needs kind {usual.kind}"
        yield Problem(what, where=resolved.where("loss"), hint=f"compatible losses: {compatible}")


def _infer_task(
    registry: Registry, architectures: Sequence[str], data: DataConfig, look: Callable[[], tuple[str, str]], where: str
) -> Chosen[Task]:
    tasks = registry.defaults(Task)
    matches = ((name, each) for name in architectures for each in tasks if name.endswith(each.component.architectures))
    architecture, by_model = next(matches, ("", None))
    task = by_model.component if by_model else None
    # A model that writes text keeps its task unless the config asks for labels; a masked-language model also gives way to
    # rows with tags.
    labels_requested = data.label_field is not None or data.format in ("labelled", "tokens")
    kind, evidence = look() if labels_requested or task is None or not task.writes else ("", "")
    wanted = "labelled" if kind == "multi-label" else kind
    if wanted and (task is None or wanted not in task.formats):
        gives_way = labels_requested or task is None or wanted == "tokens" or "labelled" in task.formats
        fitting = (each for each in tasks if wanted in each.component.formats and not each.component.writes)
        if gives_way and (found := next(fitting, None)):
            return Chosen(found, reason=evidence)
    if by_model is not None:
        return Chosen(by_model, reason=f"config.json lists {architecture}")
    names = ", ".join(each.component.name for each in tasks)
    what = f"the task cannot be inferred: the model's config.json lists {', '.join(architectures) or 'no architecture'}"
    raise ConfigError(what, where=where, hint=f"set task to one of: {names}")
