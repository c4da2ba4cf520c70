"""Flags and loading that commands share."""

import gc
import shlex
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

    def as_arguments(self) -> list[str]:
        """Write the flags as command-line arguments."""
        files = [part for file in self.plugin for part in ("--plugin", str(file))]
        names = [part for name in self.no_plugin for part in ("--no-plugin", name)]
        return [*files, *names, *self.no_plugins * ["--no-plugins"], *self.strict_plugins * ["--strict-plugins"]]


def train_command(run: Sequence[str], flags: PluginFlags | None) -> str:
    """Write the command that trains with the arguments of another command."""
    return shlex.join(["smolora", "train", *run, *(flags.as_arguments() if flags else ())])


def load_run(run: Sequence[str], flags: PluginFlags | None) -> tuple[Resolved, PluginManager]:
    """Read a run's config and settings, and load its plugins.

    Returns:
        The config, to which the plugins of the flags are added, so that it can be run again without them; and the plugins.

    Raises:
        ConfigError: the config or a setting is invalid.
        PluginError: a required plugin is missing or failed, or the flags are strict and there is a problem.
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
    """Load plugins, and print a warning for each problem.

    Args:
        flags: the command's flags.
        choice: a run's choice, which includes the flags' files and names; None takes those of the flags alone.

    Raises:
        PluginError: a required plugin is missing or failed, or the flags are strict and there is a problem.
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
    """Suspend garbage collection while modules are imported, and exempt what they created from later collections.

    Imports create hundreds of thousands of objects that all stay. Each full collection would visit every one of them, which
    takes a fifth of the start-up time, and again during training. Only for processes that smolora itself started.
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
