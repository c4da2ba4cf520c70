"""The plugin manager: discovers, filters, loads and registers plugins. An instance, never a global."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import attrs

from smolora_core.config import PluginConfig
from smolora_core.errors import PluginError, Problem, did_you_mean
from smolora_core.plugins.discovery import Candidate, Origin, Tier, candidate_from_file, candidate_from_object, discover
from smolora_core.plugins.loading import describe, load
from smolora_core.plugins.plugin import Plugin, admit, wrong_type
from smolora_core.plugins.registry import Registry

T = TypeVar("T")

DISABLE_VARIABLE = "SMOLORA_DISABLE_PLUGINS"


@attrs.frozen(kw_only=True)
class PluginChoice:
    """The plugins a user wants.

    Attributes:
        disable: plugins or distributions that must not be imported.
        require: plugins or distributions that must load.
        files: Python files to load as plugins.
        objects: modules or objects with hook implementations, passed from Python.
        third_party: whether to load installed plugins that are not built in.
        strict: whether any problem with any plugin is an error.
    """

    disable: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    objects: tuple[object, ...] = ()
    third_party: bool = True
    strict: bool = False

    @classmethod
    def of(cls, section: PluginConfig) -> Self:
        """Take the choice from a config."""
        return cls(disable=section.disable, require=section.require, files=tuple(map(Path, section.load)))

    def blocks(self, origin: Origin) -> bool:
        """Whether a plugin must not be imported."""
        return (origin.tier is Tier.THIRD_PARTY and not self.third_party) or any(map(origin.is_called, self.disable))

    def with_environment(self) -> Self:
        """Disable also the comma-separated names in `SMOLORA_DISABLE_PLUGINS`."""
        names = (name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(","))
        return attrs.evolve(self, disable=tuple(dict.fromkeys((*self.disable, *filter(None, names)))))


class PluginManager:
    """All plugins with their state, the registry of their components, and calls of their event hooks.

    Example:
        >>> from smolora_core import Loss
        >>> manager = PluginManager.create(PluginChoice(third_party=False))
        >>> manager.registry.resolve(Loss, "cross-entropy").origin.tier
        <Tier.BUILT_IN: 0>
    """

    def __init__(self, plugins: Iterable[Plugin], problems: Iterable[Problem] = ()) -> None:
        self.plugins = tuple(plugins)
        components = (found for plugin in self.plugins for found in plugin.components)
        self.registry = Registry(components, missing=map(str, self._missing()))
        own = (problem for plugin in self.plugins for problem in plugin.problems)
        self.problems = (*problems, *own, *self.registry.problems())

    @classmethod
    def create(cls, choice: PluginChoice | None = None, warn: Callable[[str], None] = lambda line: None) -> Self:
        """Find and load plugins.

        Args:
            choice: the plugins to load, by default all that are installed; `SMOLORA_DISABLE_PLUGINS` always applies.
            warn: called with a message about a plugin whose import is slow, while it is still running.

        Raises:
            PluginError: a required plugin, file or object (with a strict choice, any plugin) is missing or has a problem.
        """
        choice = (choice or PluginChoice()).with_environment()
        files = {path.resolve(): path for path in choice.files}.values()
        candidates = [*discover(), *map(candidate_from_file, files), *map(candidate_from_object, choice.objects)]
        plugins = [
            Plugin(candidate.origin, "blocked") if choice.blocks(candidate.origin) else admit(load(candidate, warn))
            for candidate in candidates
        ]
        unknown = (name for name in choice.disable if not any(each.origin.is_called(name) for each in candidates))
        manager = cls(plugins, [_unknown(f"cannot disable unknown plugin {name!r}", name, candidates) for name in unknown])
        fatal = [*manager._fatal(choice.require), *(manager.problems if choice.strict else ())]
        if fatal:
            raise PluginError.of(dict.fromkeys(fatal))
        return manager

    def call_hook(self, hook: str, **arguments: Any) -> list[tuple[Origin, Any]]:
        """Call an event hook of every plugin; return each plugin's origin and result, generators as tuples.

        If plugins raise, the others are still called, then the first exception is raised with the later ones as notes.
        """
        answers: list[tuple[Origin, Any]] = []
        errors: list[Exception] = []
        for plugin in self.plugins:
            try:
                answers += [(plugin.origin, answer) for answer in plugin.call(hook, **arguments)]
            except Exception as error:
                errors.append(error)
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"followed by {describe(other)}, {' '.join(other.__notes__)}")
            raise errors[0]
        return answers

    def collect(self, hook: str, kind: type[T], **arguments: Any) -> Iterator[T | Problem]:
        """Call an event hook of every plugin, and yield what each returned, singly or in an iterable.

        An object of another type becomes a Problem; a Problem without a place gets the plugin's title.
        """
        for origin, answer in self.call_hook(hook, **arguments):
            for offered in answer if isinstance(answer, Iterable) else [answer]:
                found = offered if isinstance(offered, kind) else wrong_type(hook, offered, kind)
                if isinstance(found, Problem) and not found.where:
                    yield Problem(found.what, where=f"{origin.title}:", hint=found.hint)
                else:
                    yield found

    def _missing(self) -> Iterator[Problem]:
        for plugin in self.plugins:
            if plugin.state == "blocked":
                yield Problem("is blocked", where=f"{plugin.origin.title}:")
            elif plugin.state == "failed":
                yield from plugin.problems

    def _fatal(self, required: Iterable[str]) -> Iterator[Problem]:
        """Report the problems of plugins that the user relies on: required ones, files and objects."""
        for name in required:
            matches = [plugin for plugin in self.plugins if plugin.origin.is_called(name)]
            if not matches:
                yield _unknown(f"required plugin {name!r} is not installed", name, self.plugins)
            for plugin in matches:
                if plugin.state == "blocked":
                    yield Problem("is both required and blocked", where=f"{plugin.origin.title}:", hint="remove one of the two")
                for problem in plugin.problems:
                    yield attrs.evolve(problem, what=f"is required, but {problem.what}")
        for plugin in self.plugins:
            if plugin.origin.tier is Tier.USER:
                yield from plugin.problems


def _unknown(what: str, name: str, among: Iterable[Candidate | Plugin]) -> Problem:
    known = (known for plugin in among for known in plugin.origin.aliases)
    return Problem(what, hint=did_you_mean(name, (each for each in known if ":" in name or ":" not in each)))
