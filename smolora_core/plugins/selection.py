"""From the names in a config to components with their options, all problems at once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Generic

import attrs

from smolora_core.components import CheckpointWriter, Component, Loss, MemoryStrategy, Preprocessor, Task
from smolora_core.config import Resolved, Selection, convert
from smolora_core.errors import ConfigError, PluginError, Problem, SmoLoRAError
from smolora_core.plugins.discovery import Origin
from smolora_core.plugins.loading import build
from smolora_core.plugins.registry import C, Kind, Registered, Registry
from smolora_core.plugins.source_digest import code_of


@attrs.frozen
class Chosen(Generic[C]):
    """A component that a run uses.

    Attributes:
        registered: the component and its origin.
        options: an instance of its options class, or None for the defaults.
        reason: why it was chosen, where the user did not name it.
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
        """A digest of the source it is made of, as `code_of`: computed once a run, for it reads whole packages."""
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
    """Every component of a run but its targets."""

    task: Chosen[Task]
    loss: Chosen[Loss]
    preprocessors: tuple[Chosen[Preprocessor], ...]
    writers: tuple[Chosen[CheckpointWriter], ...]
    memory: tuple[Chosen[MemoryStrategy], ...] | None
    """None leaves it to the device."""

    def numbers(self, weight_field: str | None) -> tuple[str, ...]:
        """Name the columns of numbers that a run reads: those that the loss declares, and the weight of a row."""
        return tuple(dict.fromkeys(filter(None, (*self.loss.component.columns, weight_field))))


def choose_components(
    resolved: Resolved,
    registry: Registry,
    architectures: Sequence[str] | None,
    look: Callable[[], tuple[str, str]] = lambda: ("", ""),
) -> Choices | None:
    """Resolve every name in a config.

    Args:
        resolved: the config and where its values stand.
        registry: of all plugins.
        architectures: what the model's config says it is, for `task: auto`; None where that is not known yet.
        look: says what the rows are labelled with (`labelled`, `several`, `scored`, `tokens`, or nothing) and why; called
            where the config leaves that open.

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
    labels = _Labels(resolved, look)
    if config.task == "auto" and architectures is not None:
        try:
            task = _infer_task(registry, architectures, labels, resolved.where("model"))
        except SmoLoRAError as error:
            problems.extend(error.problems)
    default = Selection(name=_default_loss(task.component, labels)) if task else None
    loss = choose(Loss, selection, "loss") if (selection := config.loss or default) else None
    if loss is not None and default is not None and task is not None:
        # A default that is not there is missed only by those who leave the loss out.
        with suppress(SmoLoRAError):
            usual = registry.resolve(Loss, default.name).component
            problems.extend(_unfit(loss, usual, task, registry, resolved))
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


def choose_preprocessors(resolved: Resolved, registry: Registry) -> tuple[Chosen[Preprocessor], ...]:
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

    def written(chosen: Chosen[Component], selection: Selection | None, path: str) -> Selection:
        options = {} if chosen.options is None else attrs.asdict(chosen.options, recurse=False)
        for option in options:
            sources.setdefault(f"{path}.{option}", f"default of {chosen.origin}")
        return Selection(name=selection.name if selection else chosen.name, options=options)

    def each(chosen: Iterable[Chosen[Component]], selections: Iterable[Selection], path: str) -> tuple[Selection, ...]:
        pairs = enumerate(zip(chosen, selections, strict=True))
        return tuple(written(one, selection, f"{path}.{index}") for index, (one, selection) in pairs)

    if config.task == "auto":
        sources["task"] = f"auto: {choices.task}"
    if config.loss is None:
        sources["loss"] = f"default of {choices.task.title}"
    spelt = attrs.evolve(
        config,
        task=choices.task.name,
        loss=written(choices.loss, config.loss, "loss"),
        data=attrs.evolve(
            config.data, preprocessors=each(choices.preprocessors, config.data.preprocessors, "data.preprocessors")
        ),
        memory=config.memory if isinstance(config.memory, str) else each(choices.memory or (), config.memory, "memory"),
        checkpoints=attrs.evolve(
            config.checkpoints, writers=each(choices.writers, config.checkpoints.writers, "checkpoints.writers")
        ),
    )
    return attrs.evolve(resolved, config=spelt, sources=sources)


def default_strategies(registry: Registry, device: str) -> tuple[Chosen[MemoryStrategy], ...]:
    """The memory strategies that `memory: auto` switches on for a device."""
    strategies = registry.in_force(MemoryStrategy)
    return tuple(Chosen(found) for found in strategies if found.component.default and device in found.component.devices)


def _choose(
    resolved: Resolved, registry: Registry, problems: list[Problem], kind: type[Kind], selection: Selection, path: str
) -> Chosen[Kind] | None:
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
    kind: type[Kind],
    selections: Iterable[Selection],
    path: str,
) -> tuple[Chosen[Kind], ...]:
    chosen = [
        _choose(resolved, registry, problems, kind, selection, f"{path}.{index}") for index, selection in enumerate(selections)
    ]
    return tuple(filter(None, chosen))


def _options(found: Registered[Component], selection: Selection, resolved: Resolved, path: str) -> Any:
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


class _Labels:
    """What the first rows show of their labels; they are read when that is first asked."""

    def __init__(self, resolved: Resolved, look: Callable[[], tuple[str, str]]) -> None:
        self._resolved, self._ask = resolved, look
        self._found: tuple[str, str] | None = None

    @property
    def asked_for(self) -> bool:
        """Whether the config says that rows are labelled."""
        data = self._resolved.config.data
        return data.label_field is not None or data.format in ("labelled", "tokens")

    @property
    def several(self) -> bool:
        """Whether a row may have several labels."""
        field = self._resolved.config.data.label_field
        return (isinstance(field, tuple) and len(field) > 1) or self.kind == "several"

    @property
    def kind(self) -> str:
        """Give `labelled`, `several`, `scored`, `tokens`, or nothing for rows without labels."""
        return self._look()[0]

    @property
    def reason(self) -> str:
        return self._look()[1]

    def _look(self) -> tuple[str, str]:
        if self._found is None:
            self._found = self._ask()
        return self._found


def _default_loss(task: Task, labels: _Labels) -> str:
    return task.multi_label_loss if task.multi_label_loss and labels.several else task.loss


def _unfit(loss: Chosen[Loss], usual: Loss, task: Chosen[Task], registry: Registry, resolved: Resolved) -> Iterator[Problem]:
    """Say where a loss is of a kind that the task has no use for: the default loss is of the kind it has."""
    chosen = loss.component
    if chosen.kind == "model":
        if resolved.config.data.weight_field:
            where, hint = resolved.where("data.weight_field"), "such a loss declares the columns it needs"
            yield Problem(f"the loss {loss.name!r} is of kind model, and weighs rows itself", where=where, hint=hint)
    elif chosen.kind != usual.kind:
        losses = (found.component for found in registry.in_force(Loss))
        fitting = ", ".join(each.name for each in losses if each.kind in (usual.kind, "model"))
        what = f"the loss {loss.title} is of kind {chosen.kind}, and {task.title} needs kind {usual.kind}"
        yield Problem(what, where=resolved.where("loss"), hint=f"these fit: {fitting}")


def _infer_task(registry: Registry, architectures: Sequence[str], labels: _Labels, where: str) -> Chosen[Task]:
    tasks = registry.in_force(Task)
    matches = ((name, each) for name in architectures for each in tasks if name.endswith(each.component.architectures))
    architecture, by_model = next(matches, ("", None))
    task = by_model.component if by_model else None
    # A model that writes text goes on to do so, unless the config speaks of labels; one for masked tokens, unless it does or
    # the rows have tags.
    kind = labels.kind if labels.asked_for or task is None or not task.writes else ""
    wanted = "labelled" if kind == "several" else kind
    if wanted and (task is None or wanted not in task.formats):
        turns = labels.asked_for or task is None or wanted == "tokens" or "labelled" in task.formats
        fits = (each for each in tasks if wanted in each.component.formats and not each.component.writes)
        if turns and (found := next(fits, None)):
            return Chosen(found, reason=labels.reason)
    if by_model is not None:
        return Chosen(by_model, reason=f"config.json says {architecture}")
    names = ", ".join(each.component.name for each in tasks)
    says = f"its config.json says {', '.join(architectures)}" if architectures else "its config.json names no architecture"
    raise ConfigError(f"the task cannot be told from the model: {says}", where=where, hint=f"set task to one of: {names}")
