"""The plugin manager: discover, filter, load, register and check, collect. An instance, never a global."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs
import pluggy

from smolora_core import hookspecs
from smolora_core.components import Component
from smolora_core.errors import PluginError, Problem, SmoLoRAError, did_you_mean
from smolora_core.hookspecs import CONTRIBUTIONS, PROJECT
from smolora_core.plugins.discovery import (
    Candidate,
    Origin,
    candidate_from_file,
    candidate_from_object,
    discover,
    split_blocked,
)
from smolora_core.plugins.loading import Loaded, load, noting
from smolora_core.plugins.registry import Registered, Registry

__all__ = ["DISABLE_VARIABLE", "Plugin", "PluginChoice", "PluginManager"]

DISABLE_VARIABLE = "SMOLORA_DISABLE_PLUGINS"


@attrs.frozen(kw_only=True)
class PluginChoice:
    """Which plugins a user wants.

    Attributes:
        disable: plugin or distribution names that must not even be imported.
        require: names that must load.
        files: Python files to load as plugins.
        objects: modules or objects with hook implementations, handed over from Python.
        third_party: False blocks every plugin that is neither built in nor handed over.
        strict: whether any problem with any plugin is an error.
    """

    disable: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    objects: tuple[object, ...] = ()
    third_party: bool = True
    strict: bool = False

    def with_environment(self) -> Self:
        """Add the names in `SMOLORA_DISABLE_PLUGINS`, separated by commas."""
        names = tuple(filter(None, (name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(","))))
        return attrs.evolve(self, disable=self.disable + names)


@attrs.frozen
class Plugin:
    """A plugin as listings show it.

    Attributes:
        state: `loaded`, `blocked` or `failed`.
        seconds: how long its import took.
        plugin: the module or object itself, once loaded.
        problems: what is wrong with it; a failed plugin has at least one.
    """

    origin: Origin
    state: str
    seconds: float = 0.0
    plugin: object | None = attrs.field(default=None, repr=False)
    components: tuple[Registered, ...] = ()
    problems: tuple[Problem, ...] = ()


class PluginManager:
    """Everything that plugins brought: their state, a registry of their components, and a way to tell them what happens.

    Example:
        >>> manager = PluginManager.create(PluginChoice(third_party=False))
        >>> manager.registry.resolve(Loss, "cross-entropy").origin.tier
        <Tier.BUILT_IN: 0>
    """

    def __init__(self, plugins: Iterable[Plugin], hooks: pluggy.PluginManager, problems: Iterable[Problem] = ()) -> None:
        self.plugins = tuple(plugins)
        failed = (str(problem) for plugin in self.plugins if plugin.state == "failed" for problem in plugin.problems)
        self.registry = Registry((found for plugin in self.plugins for found in plugin.components), missing=failed)
        self.problems = (
            *problems,
            *(problem for plugin in self.plugins for problem in plugin.problems),
            *self.registry.problems(),
        )
        self._hooks = hooks

    @classmethod
    def create(cls, choice: PluginChoice | None = None, warn: Callable[[str], None] = lambda line: None) -> Self:
        """Find and load plugins.

        Args:
            choice: what the user wants; by default every installed plugin.
            warn: told in time of a plugin that hangs while it is imported.

        Raises:
            PluginError: a required plugin is missing or failed, or anything is wrong and the choice is strict.
        """
        choice = choice or PluginChoice()
        candidates = [*discover(), *map(candidate_from_file, choice.files), *map(candidate_from_object, choice.objects)]
        allowed, blocked = split_blocked(candidates, frozenset(choice.disable), third_party=choice.third_party)
        hooks = pluggy.PluginManager(PROJECT)
        hooks.add_hookspecs(hookspecs)
        plugins = [Plugin(candidate.origin, "blocked") for candidate in blocked]
        plugins += [_admit(load(candidate, warn), hooks) for candidate in allowed]
        manager = cls(plugins, hooks, _unmet(choice.disable, candidates))
        manager._require(choice.require)
        if choice.strict and manager.problems:
            raise PluginError.of(manager.problems)
        return manager

    def tell(self, hook: str, **arguments: Any) -> Iterator[tuple[Origin, Any]]:
        """Call an event hook of every plugin in turn.

        Yields:
            The plugin's origin and what it returned. An exception keeps its type and gets a note that names the plugin.
        """
        for plugin in self.plugins:
            if plugin.plugin is not None:
                with noting(plugin.origin, f"calling {hook}"):
                    results = _call_one(self._hooks, hook, plugin.plugin, arguments)
                yield from ((plugin.origin, result) for result in results)

    def _require(self, names: Iterable[str]) -> None:
        problems = []
        for name in names:
            meant = [plugin for plugin in self.plugins if name in plugin.origin.answers_to]
            if not meant:
                known = {known for plugin in self.plugins for known in plugin.origin.answers_to}
                problems.append(Problem(f"required plugin {name!r} is not installed", hint=did_you_mean(name, known)))
            for plugin in meant:
                if plugin.state == "blocked":
                    problems.append(
                        Problem(f"required plugin {name!r} is blocked", hint="it cannot be required and disabled at once")
                    )
                problems.extend(attrs.evolve(problem, what=f"required {problem.what}") for problem in plugin.problems)
        if problems:
            raise PluginError.of(problems)


def _unmet(names: Iterable[str], candidates: Iterable[Candidate]) -> Iterator[Problem]:
    known = {known for candidate in candidates for known in candidate.origin.answers_to}
    for name in names:
        if name not in known:
            yield Problem(f"no plugin {name!r} to disable", hint=did_you_mean(name, known))


def _admit(loaded: Loaded, hooks: pluggy.PluginManager) -> Plugin:
    """Register a plugin, check its functions and collect its records."""
    origin = loaded.origin
    where = f"plugin '{origin.plugin}' ({origin}):"
    if loaded.error is not None:
        cause = f"{type(loaded.error).__name__}: {loaded.error}"
        return Plugin(
            origin, "failed", loaded.seconds, problems=(Problem(f"plugin cannot be imported ({cause})", where=where),)
        )
    try:
        hooks.register(loaded.plugin, name=f"{origin} {origin.plugin} {id(loaded.plugin)}")
    except (pluggy.PluginValidationError, ValueError) as error:
        return Plugin(
            origin, "failed", loaded.seconds, problems=(Problem(f"plugin cannot be registered ({error})", where=where),)
        )
    problems = list(_check_functions(loaded.plugin, hooks, where))
    components: list[Registered] = []
    for hook, record in CONTRIBUTIONS.items():
        try:
            for offered in _call_one(hooks, hook, loaded.plugin, {}):
                components.extend(_collect(hook, record, offered, origin, components))
        except SmoLoRAError as error:
            problems.extend(attrs.evolve(problem, where=f"{where[:-1]}, {problem.where or hook}") for problem in error.problems)
        except (Exception, SystemExit) as error:
            problems.append(Problem(f"{hook} raised {type(error).__name__}: {error}", where=where))
    return Plugin(origin, "loaded", loaded.seconds, loaded.plugin, tuple(components), tuple(problems))


def _call_one(hooks: pluggy.PluginManager, hook: str, plugin: object, arguments: dict[str, Any]) -> list[Any]:
    others = [other for other in hooks.get_plugins() if other is not plugin]
    return list(hooks.subset_hook_caller(hook, remove_plugins=others)(**arguments))


def _collect(
    hook: str, record: type[Component], offered: Any, origin: Origin, before: Iterable[Registered]
) -> Iterator[Registered]:
    taken = {(type(found.component), found.component.name) for found in before}
    if isinstance(offered, str) or not isinstance(offered, Iterable):
        raise PluginError(f"{hook} returned {type(offered).__name__}", hint=f"return an iterable of {record.__name__} records")
    for component in offered:
        if not isinstance(component, record):
            raise PluginError(f"{hook} gave {type(component).__name__}", hint=f"it gives {record.__name__} records")
        if (record, component.name) in taken:
            raise PluginError(f"{hook} gave two records named {component.name!r}", hint="names are unique within a plugin")
        taken.add((record, component.name))
        yield Registered(component, origin)


def _check_functions(plugin: object, hooks: pluggy.PluginManager, where: str) -> Iterator[Problem]:
    known = {name for name in vars(hookspecs) if name.startswith("smolora_")}
    for name in sorted(filter(lambda name: name.startswith("smolora_"), dir(plugin))):
        if not inspect.isroutine(getattr(plugin, name, None)):
            continue
        marked = hooks.parse_hookimpl_opts(plugin, name)
        if marked and (marked["optionalhook"] or marked["specname"]):
            continue
        if name not in known:
            yield Problem(f"{name} is no hook", where=where, hint=did_you_mean(name, known))
        elif marked is None:
            yield Problem(f"{name} is not marked and never runs", where=where, hint="put @hookimpl above it")
