"""Flags that several commands share."""

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from smolora_core.config import Resolved, load_config, parse_flags
from smolora_core.plugins import PluginChoice, PluginManager

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON.")]
RunArguments = Annotated[
    str,
    Parameter(
        name="RUN",
        allow_leading_hyphen=True,
        help="A config file, and settings that override it: --section.key value.",
    ),
]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class PluginFlags:
    """Which plugins a command loads."""

    plugin: Annotated[tuple[Path, ...], Parameter(negative="", help="Load a Python file as a plugin.")] = ()
    no_plugin: Annotated[tuple[str, ...], Parameter(negative="", help="Do not import a plugin or distribution.")] = ()
    no_plugins: Annotated[bool, Parameter(negative="", help="Do not import any third party's plugin.")] = False
    strict_plugins: Annotated[bool, Parameter(negative="", help="Take any problem with a plugin as an error.")] = False

    def spelt(self) -> list[str]:
        """Spell the flags as on a command line."""
        files = [part for file in self.plugin for part in ("--plugin", str(file))]
        names = [part for name in self.no_plugin for part in ("--no-plugin", name)]
        return [*files, *names, *self.no_plugins * ["--no-plugins"], *self.strict_plugins * ["--strict-plugins"]]


def load_run(run: Sequence[str], flags: PluginFlags | None) -> tuple[Resolved, PluginManager]:
    """Read a run's config and settings, lay the plugin flags over them, and load the plugins.

    Returns:
        The config, which names the plugins of the flags too, so that it can be run again without them; and the plugins.

    Raises:
        ConfigError: the config, or a setting, cannot be used.
        PluginError: as `load_plugins`.
    """
    file, settings = parse_flags(run)
    resolved = _lay_over(load_config(file, settings), flags or PluginFlags())
    return resolved, load_plugins(flags, PluginChoice.of(resolved.config.plugins))


def _lay_over(resolved: Resolved, flags: PluginFlags) -> Resolved:
    section, sources = resolved.config.plugins, dict(resolved.sources)
    load = _added(section.load, map(str, flags.plugin), "plugins.load", "--plugin", sources)
    disable = _added(section.disable, flags.no_plugin, "plugins.disable", "--no-plugin", sources)
    return Resolved(attrs.evolve(resolved.config, plugins=attrs.evolve(section, load=load, disable=disable)), sources)


def _added(held: tuple[str, ...], given: Iterable[str], path: str, flag: str, sources: dict[str, str]) -> tuple[str, ...]:
    every = tuple(dict.fromkeys((*held, *given)))
    sources.update({f"{path}.{index}": flag for index in range(len(held), len(every))})
    return every


def load_plugins(flags: PluginFlags | None, choice: PluginChoice | None = None) -> PluginManager:
    """Load plugins, and print a line for each problem.

    Args:
        flags: of the command.
        choice: of a run's config, over which the flags' files and names are laid already; those of the flags when None.

    Raises:
        PluginError: a required plugin is missing or failed, or the flags are strict and anything is wrong.
    """
    flags = flags or PluginFlags()
    choice = choice or PluginChoice(files=flags.plugin, disable=flags.no_plugin)
    manager = PluginManager.create(
        attrs.evolve(choice, third_party=not flags.no_plugins, strict=flags.strict_plugins), warn=note
    )
    for problem in manager.problems:
        note(str(problem))
    return manager


def note(line: str) -> None:
    """Print a warning."""
    print(f"warning: {line}", file=sys.stderr)


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Hold the garbage collector off while modules are imported, and keep what they made out of its later rounds.

    Imports make hundreds of thousands of objects that all stay. A full collection walks through every one, to find nothing:
    that takes a fifth of the start-up, and each full collection in training takes it again. Only for a process that is ours.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
