"""Digest the code that a component runs, so that the digest changes whenever the code may behave differently.

Version numbers are not enough: results cached before an author edited a plugin must not be reused. So every file of the
implementation's package counts, and of the user's modules that it imports; `environment` covers what is installed.
"""

import ast
import importlib.metadata
import importlib.util
import platform
import re
import sys
from collections.abc import Iterable
from functools import cache
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

from smolora_core.components import Component
from smolora_core.plugins.registry import Registered

_LARGE = 1 << 20
_SITES = {"site-packages", "dist-packages"}
_CORE = __name__.partition(".")[0]
_IMPORT = re.compile(rb"(?:^|[;:])[ \t]*(?:from[ \t]+\w+|import[ \t][^\n;]*)", re.MULTILINE)
_NAME = re.compile(rb"(?:from|import|,)[ \t]+(\w+)")


def code_of(registered: Registered[Component]) -> str | None:
    """Digest the source of a component; return None if its implementation is an object that cannot be pickled.

    An implementation passed as an object also counts by value: the variables of a closure, the state of a callable object,
    and the globals that a function of a script or notebook uses.
    """
    implementation = registered.component.implementation
    if isinstance(implementation, str):
        return package_digest(implementation.partition(":")[0])
    value = _value_digest(implementation)
    module = getattr(implementation, "__module__", None) or type(implementation).__module__
    return value and f"{value} {package_digest(module)}"


@cache
def environment() -> str:
    """Digest the Python version and the metadata of all installed distributions, which contain their versions."""
    texts = (each.read_text("METADATA") or each.read_text("PKG-INFO") or "" for each in importlib.metadata.distributions())
    # Only the headers, without the description. Parsing them for two fields would be many times slower.
    installed = sorted(text.partition("\n\n")[0] for text in texts)
    return _digest([platform.python_version().encode(), *(text.encode() for text in installed)])


def package_digest(module: str) -> str:
    """Digest every file of the package that a module belongs to, and of the user's modules that it imports."""
    return _digest(part for path in sorted(_files(module)) for part in (bytes(path), _content(path)))


def _files(module: str) -> set[Path]:
    found: set[Path] = set()
    root = module.partition(".")[0]
    names, seen = [root], {_CORE} - {root}
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        paths = (path for place in _places(name) for path in (place, *place.rglob("*")) if "__pycache__" not in path.parts)
        new = {path.resolve() for path in paths if path.is_file()} - found
        found |= new
        # The core imports none of the user's modules by name.
        if name != _CORE:
            for path in new:
                if path.suffix == ".py" and _SITES.isdisjoint(path.parts):
                    names += _imports(path, seen)
    return found


def _places(name: str) -> list[Path]:
    """List the folders of a top-level package and the file of a top-level module or package."""
    module = sys.modules.get(name)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        folders, origin = (spec.submodule_search_locations, spec.origin) if spec else (None, None)
    else:
        folders, origin = getattr(module, "__path__", None), getattr(module, "__file__", None)
    return [Path(place) for place in (*(folders or ()), origin) if place]


def _imports(path: Path, seen: set[str]) -> set[str]:
    """Name the user's modules that a file imports anywhere, also within functions, except those in `seen`."""
    content = path.read_bytes()
    # Most files import none, and a regular expression finds that out much faster than parsing; false matches do no harm.
    mentioned = {name.decode() for line in _IMPORT.findall(content) for name in _NAME.findall(line)}
    if b"\\\n" not in content and not _users_own(mentioned - seen):
        return set()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return _users_own({name.partition(".")[0] for name in names} - seen)


def _users_own(modules: set[str]) -> set[str]:
    """Leave out the standard library, the core, and what is installed."""
    others = modules - sys.stdlib_module_names - {_CORE}
    # Installed modules are recognised by folder names, because virtual environments can be layered.
    return {name for name in others if all(_SITES.isdisjoint(place.parts) for place in _places(name))}


def _content(path: Path) -> bytes:
    about = path.stat()
    # Data files in a package may be of any size.
    return path.read_bytes() if about.st_size < _LARGE else f"{about.st_size} {about.st_mtime_ns}".encode()


def _value_digest(implementation: Any) -> str | None:
    from datasets.utils._dill import Pickler

    class StablePickler(Pickler):
        """Pickles sets, including those in the constants of functions, in the same order in every process."""

        dispatch = type(Pickler.dispatch)({**Pickler.dispatch, frozenset: _save_sorted, set: _save_sorted})

    stream = BytesIO()
    try:
        StablePickler(stream, recurse=True).dump(implementation)
    except Exception:  # pickling fails in as many ways as there are objects
        return None
    return blake2b(stream.getvalue(), digest_size=16).hexdigest()


def _save_sorted(pickler: Any, values: Any) -> None:
    pickler.save_reduce(type(values), (sorted(values, key=repr),), obj=values)


def _digest(parts: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()
