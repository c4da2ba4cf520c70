"""Find plugins without importing any: entry points, files and objects, each with its origin."""

import enum
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import attrs

from smolora_core.errors import PluginError

__all__ = ["GROUP", "Candidate", "Origin", "Tier", "candidate_from_file", "candidate_from_object", "discover"]

GROUP = "smolora"
_OWN_DISTRIBUTION = "smolora"


class Tier(enum.IntEnum):
    """Whose word counts when two components have one name: the higher tier's."""

    BUILT_IN = 0
    THIRD_PARTY = 1
    USER = 2


@attrs.frozen
class Origin:
    """Where a plugin comes from.

    Attributes:
        plugin: the entry point's name, the file's stem or the object's name.
        distribution: the installed package, or `""` for files and objects.
        version: the distribution's version, or `""`.
        location: what is imported: a module, or the path of a file.
    """

    plugin: str
    tier: Tier
    distribution: str = ""
    version: str = ""
    location: str = ""

    @property
    def answers_to(self) -> frozenset[str]:
        """The names by which a user can block or require the plugin."""
        return frozenset(filter(None, (self.plugin, self.distribution, f"{self.distribution}:{self.plugin}")))

    def __str__(self) -> str:
        if self.distribution:
            return f"{self.distribution} {self.version}"
        return self.location or self.plugin


@attrs.frozen
class Candidate:
    """A plugin that could be loaded: its origin, and the import that has not happened yet."""

    origin: Origin
    load: Callable[[], object]


def discover() -> tuple[Candidate, ...]:
    """List the plugins of all installed distributions, reading their metadata only.

    Returns:
        Built-ins first, then by distribution and name: the same order on every machine.
    """
    found = {}
    for distribution in importlib.metadata.distributions():
        for entry in distribution.entry_points.select(group=GROUP):
            name, version = distribution.metadata["Name"], distribution.version
            tier = Tier.BUILT_IN if name == _OWN_DISTRIBUTION else Tier.THIRD_PARTY
            # The first distribution of a name on sys.path is the one Python imports; a later one is shadowed.
            found.setdefault(
                (tier, name, entry.name), Candidate(Origin(entry.name, tier, name, version, entry.value), entry.load)
            )
    return tuple(found[key] for key in sorted(found))


def candidate_from_file(path: Path) -> Candidate:
    """Make a candidate of a Python file that the user named.

    Raises:
        PluginError: there is no such file, or it is not Python.
    """
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(f"no Python file {str(path)!r}", where="plugin", hint="give the path of a .py file")
    return Candidate(Origin(path.stem, Tier.USER, location=str(path)), lambda: _import_file(path))


def candidate_from_object(plugin: object) -> Candidate:
    """Make a candidate of a module or object that was handed over from Python."""
    name = getattr(plugin, "__name__", None) or type(plugin).__name__
    return Candidate(Origin(name, Tier.USER, location=f"given from Python ({name})"), lambda: plugin)


def _import_file(path: Path) -> ModuleType:
    # Registered under a name of its own, so that "smolora_file_x:attribute", pickling and tracebacks find it again.
    name = f"smolora_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def split_blocked(
    candidates: Iterable[Candidate], names: frozenset[str], *, third_party: bool
) -> tuple[list[Candidate], list[Candidate]]:
    """Part candidates into those to load and those blocked, by name or because no third party is wanted."""
    allowed: list[Candidate] = []
    blocked: list[Candidate] = []
    for candidate in candidates:
        hit = candidate.origin.answers_to & names or (not third_party and candidate.origin.tier is Tier.THIRD_PARTY)
        (blocked if hit else allowed).append(candidate)
    return allowed, blocked
