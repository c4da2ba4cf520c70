"""The plugin manager: discover, filter, load, admit, and the answer to who offers what. An instance, never a global."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from smolora_core.config import PluginConfig
from smolora_core.errors import PluginError, Problem, did_you_mean
from smolora_core.plugins.discovery import (
    Candidate,
    Origin,
    Tier,
    candidate_from_file,
    candidate_from_object,
    discover,
)
from smolora_core.plugins.loading import describe, load, noting
from smolora_core.plugins.plugin import Plugin, admit
from smolora_core.plugins.registry import Registry

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

    @classmethod
    def of(cls, section: PluginConfig) -> Self:
        """Take what a config says about plugins."""
        return cls(disable=section.disable, require=section.require, files=tuple(map(Path, section.load)))

    def blocks(self, origin: Origin) -> bool:
        """Whether a plugin must not be imported."""
        unwanted = not self.third_party and origin.tier is Tier.THIRD_PARTY
        return unwanted or any(map(origin.is_called, self.disable))

    def with_environment(self) -> Self:
        """Add the names in `SMOLORA_DISABLE_PLUGINS`, separated by commas."""
        names = (name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(","))
        return attrs.evolve(self, disable=tuple(dict.fromkeys((*self.disable, *filter(None, names)))))


class PluginManager:
    """Everything that plugins brought: their state, a registry of their components, and a way to tell them what happens.

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
            choice: what the user wants, by default every installed plugin; `SMOLORA_DISABLE_PLUGINS` counts in any case.
            warn: told in time of a plugin that hangs while it is imported.

        Raises:
            PluginError: a plugin that was required or handed over is missing, blocked or has a problem; or any has, and the
                choice is strict.
        """
        choice = (choice or PluginChoice()).with_environment()
        files = {path.resolve(): path for path in choice.files}.values()
        candidates = [*discover(), *map(candidate_from_file, files), *map(candidate_from_object, choice.objects)]
        plugins = [
            Plugin(candidate.origin, "blocked") if choice.blocks(candidate.origin) else admit(load(candidate, warn))
            for candidate in candidates
        ]
        manager = cls(plugins, _unmet(choice.disable, candidates))
        fatal = [*manager._fatal(choice.require), *(manager.problems if choice.strict else ())]
        if fatal:
            raise PluginError.of(dict.fromkeys(fatal))
        return manager

    def tell(self, hook: str, **arguments: Any) -> list[tuple[Origin, Any]]:
        """Call an event hook of every plugin.

        Returns:
            Each plugin's origin and what its hook returned, a generator run to its end.

        Raises:
            Exception: what a plugin raised, after all were told; it keeps its type and gets a note that names the plugin. Of
                several the first one is raised, and has the others as notes.
        """
        answers: list[tuple[Origin, Any]] = []
        errors: list[Exception] = []
        for plugin in self.plugins:
            try:
                with noting(plugin.origin, f"calling {hook}"):
                    answers += [(plugin.origin, answer) for answer in plugin.call(hook, **arguments)]
            except Exception as error:
                errors.append(error)
        if errors:
            for other in errors[1:]:
                errors[0].add_note(f"then came {describe(other)}, {' '.join(other.__notes__)}")
            raise errors[0]
        return answers

    def _missing(self) -> Iterator[Problem]:
        for plugin in self.plugins:
            if plugin.state == "blocked":
                yield Problem("is blocked", where=f"{plugin.origin.title}:")
            elif plugin.state == "failed":
                yield from plugin.problems

    def _fatal(self, required: Iterable[str]) -> Iterator[Problem]:
        """Name what is wrong with the plugins that the user relies on: those required by name, and those handed over."""
        for name in required:
            meant = [plugin for plugin in self.plugins if plugin.origin.is_called(name)]
            if not meant:
                yield Problem(f"required plugin {name!r} is not installed", hint=_suggestion(name, self.plugins))
            for plugin in meant:
                if plugin.state == "blocked":
                    yield Problem("is required and blocked", where=f"{plugin.origin.title}:", hint="it cannot be both")
                for problem in plugin.problems:
                    yield attrs.evolve(problem, what=f"is required, but {problem.what}")
        for plugin in self.plugins:
            if plugin.origin.tier is Tier.USER:
                yield from plugin.problems


def _unmet(names: Iterable[str], candidates: Sequence[Candidate]) -> Iterator[Problem]:
    for name in names:
        if not any(candidate.origin.is_called(name) for candidate in candidates):
            yield Problem(f"no plugin {name!r} to disable", hint=_suggestion(name, candidates))


def _suggestion(name: str, among: Iterable[Candidate | Plugin]) -> str:
    return did_you_mean(
        name, {known for plugin in among for known in plugin.origin.answers_to if ":" in name or ":" not in known}
    )
