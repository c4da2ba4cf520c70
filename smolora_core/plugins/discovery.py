"""Find plugins without importing them: entry points, files and objects, each with its origin."""

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
    """The precedence of plugins: of two components with one name, the higher tier's is used."""

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
        location: the module to import, or the path of a file.
    """

    plugin: str
    tier: Tier
    distribution: str = ""
    version: str = ""
    location: str = ""

    @property
    def title(self) -> str:
        """The plugin's name in messages: `plugin 'acme' (acme-smolora 1.2)`."""
        return f"plugin '{self.plugin}' ({self})"

    @property
    def aliases(self) -> frozenset[str]:
        """The names by which a user can block or require the plugin: its own, its distribution's, and `distribution:plugin`."""
        qualified = (self.distribution, f"{self.distribution}:{self.plugin}") if self.distribution else ()
        return frozenset((self.plugin, *qualified))

    def is_called(self, name: str) -> bool:
        """Whether a name refers to this plugin; as in package names, case is ignored and `-`, `_` and `.` are equal."""
        return _normalize(name) in map(_normalize, self.aliases)

    def __str__(self) -> str:
        if self.distribution:
            return f"{self.distribution} {self.version}"
        return self.location or self.plugin


@attrs.frozen
class Candidate:
    """A plugin that has not been imported yet."""

    origin: Origin
    load: Callable[[], object]


def discover() -> tuple[Candidate, ...]:
    """List the plugins of all installed distributions from their metadata: built-ins first, then by distribution and name."""
    found: dict[str, list[Candidate]] = {}
    for distribution in importlib.metadata.distributions():
        # Nearly all distributions have no plugins, and searching the text is faster than parsing it.
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            continue
        entries, metadata = distribution.entry_points.select(group=GROUP), distribution.metadata
        name, version = metadata["Name"] or "", metadata["Version"] or ""
        tier = Tier.BUILT_IN if _normalize(name) == _OWN_DISTRIBUTION else Tier.THIRD_PARTY
        candidates = [Candidate(Origin(entry.name, tier, name, version, entry.value), entry.load) for entry in entries]
        # Python imports the first distribution of a name on sys.path, which shadows any later one.
        found.setdefault(_normalize(name), candidates)
    candidates = [candidate for group in found.values() for candidate in group]
    return tuple(sorted(candidates, key=lambda each: (each.origin.tier, each.origin.distribution, each.origin.plugin)))


def candidate_from_file(path: Path) -> Candidate:
    """Make a candidate of a Python file that the user named; raise a PluginError if it is missing or is not Python."""
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(f"{str(path)!r} is not an existing .py file", where="plugin")
    return Candidate(Origin(path.stem, Tier.USER, location=str(path)), lambda: _import_file(path))


def candidate_from_object(plugin: object) -> Candidate:
    """Make a candidate of a module or object passed from Python."""
    name = getattr(plugin, "__name__", None) or type(plugin).__name__
    return Candidate(Origin(name, Tier.USER, location="given from Python"), lambda: plugin)


def _import_file(path: Path) -> ModuleType:
    # Registered in sys.modules, so that f"{__name__}:attribute", pickling and tracebacks find the module. The checksum
    # distinguishes files with the same name in different folders.
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


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
