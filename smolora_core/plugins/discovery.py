"""Find plugins without importing any: entry points, files and objects, each with its origin."""

import enum
import importlib.metadata
import importlib.util
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import attrs

from smolora_core.errors import PluginError

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
    def title(self) -> str:
        """What messages call the plugin: `plugin 'acme' (acme-smolora 1.2)`."""
        return f"plugin '{self.plugin}' ({self})"

    @property
    def answers_to(self) -> frozenset[str]:
        """The names by which a user can block or require the plugin: its own, its distribution's, and `distribution:plugin`."""
        if not self.distribution:
            return frozenset((self.plugin,))
        return frozenset((self.plugin, self.distribution, f"{self.distribution}:{self.plugin}"))

    def is_called(self, name: str) -> bool:
        """Whether a name means this plugin; as for packages, case does not count and `-`, `_` and `.` are one."""
        return _normal(name) in map(_normal, self.answers_to)

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
    found: dict[str, list[Candidate]] = {}
    for distribution in importlib.metadata.distributions():
        # Nearly all distributions have no plugins; to look for the group in the text is faster than to parse it.
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            continue
        entries, metadata = distribution.entry_points.select(group=GROUP), distribution.metadata
        name, version = metadata["Name"] or "", metadata["Version"] or ""
        tier = Tier.BUILT_IN if _normal(name) == _OWN_DISTRIBUTION else Tier.THIRD_PARTY
        candidates = [Candidate(Origin(entry.name, tier, name, version, entry.value), entry.load) for entry in entries]
        # The first distribution of a name on sys.path is the one Python imports; a later one is shadowed.
        found.setdefault(_normal(name), candidates)
    everyone = (candidate for candidates in found.values() for candidate in candidates)
    return tuple(sorted(everyone, key=_place))


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
    return Candidate(Origin(name, Tier.USER, location="given from Python"), lambda: plugin)


def _import_file(path: Path) -> ModuleType:
    # Registered under a name of its own, so that f"{__name__}:attribute", pickling and tracebacks find it again.
    # The checksum parts files of one name in two folders.
    stem = re.sub(r"\W", "_", path.stem)
    name = f"smolora_file_{stem}_{zlib.crc32(bytes(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "every .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(candidate: Candidate) -> tuple[Tier, str, str]:
    origin = candidate.origin
    return origin.tier, origin.distribution, origin.plugin


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
