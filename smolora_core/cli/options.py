"""Flags that several commands share."""

import sys
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from smolora_core.plugins import PluginChoice, PluginManager

__all__ = ["Json", "PluginFlags", "RunArguments", "load_plugins", "note"]

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


def load_plugins(flags: PluginFlags | None, choice: PluginChoice | None = None) -> PluginManager:
    """Load plugins by what the config and the flags say, and print a line for each problem.

    Raises:
        PluginError: a required plugin is missing or failed, or the flags are strict and anything is wrong.
    """
    flags = flags or PluginFlags()
    choice = choice or PluginChoice().with_environment()
    manager = PluginManager.create(
        attrs.evolve(
            choice,
            files=choice.files + flags.plugin,
            disable=choice.disable + flags.no_plugin,
            third_party=not flags.no_plugins,
            strict=flags.strict_plugins,
        ),
        warn=note,
    )
    for problem in manager.problems:
        note(str(problem))
    return manager


def note(line: str) -> None:
    """Print a warning."""
    print(f"warning: {line}", file=sys.stderr)
