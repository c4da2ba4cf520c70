"""What code a component runs, as a digest that changes whenever the code may do something else.

Version numbers are not enough: an author edits a plugin and runs it again, and results kept from before the edit must not
come back. So every file of the implementation's package counts. What it may call besides, `environment` speaks for: the
names and versions of all that is installed.
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
    """Digest the source that a component is made of.

    An implementation that was handed over as an object counts by its value too: what a closure holds, what a callable object
    keeps, and the globals that a function of a script or notebook uses.

    Returns:
        None where it cannot be told: a function without a source file whose value cannot be pickled.
    """
    implementation = registered.component.implementation
    if isinstance(implementation, str):
        return package_digest(implementation.partition(":")[0])
    value = _value_digest(implementation)
    module = getattr(implementation, "__module__", None) or type(implementation).__module__
    return value and f"{value} {package_digest(module)}"


@cache
def environment() -> str:
    """Digest what is installed: Python, and what each distribution says of itself, its name and version among it."""
    installed = sorted(map(_headers, importlib.metadata.distributions()))
    return _digest([platform.python_version().encode(), *(text.encode() for text in installed)])


def _headers(distribution: importlib.metadata.Distribution) -> str:
    """Give the metadata as text, but for the description; to parse it for two of its lines takes many times as long."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return text.partition("\n\n")[0]


def package_digest(module: str) -> str:
    """Digest every file of the package that an imported module belongs to, and of what it imports besides.

    What lies in the standard library or among installed packages is left to `environment`, and the core to itself.
    """
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
        for path in _files_of(name) - found:
            found.add(path)
            # The core imports nothing of the user's by name.
            if path.suffix == ".py" and name != _CORE and _SITES.isdisjoint(path.parts):
                names += _imports(path, seen)
    return found


def _files_of(name: str) -> set[Path]:
    """List the files of a top-level module or package."""
    folders, file = _places(name)
    inside = (path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {path.resolve() for path in (*inside, *([file] if file else [])) if path.is_file()}


def _places(name: str) -> tuple[list[Path], Path | None]:
    module = sys.modules.get(name)
    if module is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        folders, origin = (spec.submodule_search_locations, spec.origin) if spec else (None, None)
    else:
        folders, origin = getattr(module, "__path__", None), getattr(module, "__file__", None)
    return [Path(folder) for folder in folders or ()], Path(origin) if origin else None


def _imports(path: Path, seen: set[str]) -> set[str]:
    """Name the modules of the user's own that a file imports anywhere, in functions too, but for those that were seen."""
    content = path.read_bytes()
    # Most files import no others, which is found out much faster than their syntax; a comment too many does no harm.
    mentioned = {name.decode() for line in _IMPORT.findall(content) for name in _NAME.findall(line)}
    if b"\\\n" not in content and not _foreign(mentioned - seen):
        return set()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return _foreign({name.partition(".")[0] for name in names} - seen)


def _foreign(modules: set[str]) -> set[str]:
    """Leave out what is of the standard library, of the core, or installed."""
    return {name for name in modules - sys.stdlib_module_names - {_CORE} if not _is_installed(name)}


def _is_installed(name: str) -> bool:
    folders, file = _places(name)
    # By the folder's name: an environment may be laid over another one.
    return any(not _SITES.isdisjoint(place.parts) for place in (*folders, *([file] if file else [])))


def _content(path: Path) -> bytes:
    about = path.stat()
    # Data that lies in a package may be of any size.
    return path.read_bytes() if about.st_size < _LARGE else f"{about.st_size} {about.st_mtime_ns}".encode()


def _value_digest(implementation: Any) -> str | None:
    from datasets.utils._dill import Pickler

    class Steady(Pickler):
        """Takes sets in an order that does not change from process to process, constants of functions among them."""

        dispatch = type(Pickler.dispatch)({**Pickler.dispatch, frozenset: _save_sorted, set: _save_sorted})

    stream = BytesIO()
    try:
        Steady(stream, recurse=True).dump(implementation)
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
