"""What code a component runs, as a digest that changes whenever the code may do something else.

Version numbers are not enough: an author edits a plugin and runs it again, and results kept from before the edit must not
come back. So every file of the implementation's package counts. What it may call besides, `environment` speaks for: the
names and versions of all that is installed.
"""

import importlib.metadata
import platform
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

from smolora_core.plugins.registry import Registered

__all__ = ["code_of", "environment", "package_digest"]

_LARGE = 1 << 20


def code_of(registered: Registered) -> str | None:
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
    """Digest what is installed: Python, and each distribution's name and version."""
    installed = sorted(f"{each.name} {each.version}" for each in importlib.metadata.distributions())
    return _digest([platform.python_version().encode(), *(line.encode() for line in installed)])


def package_digest(module: str) -> str:
    """Digest every file of the package that an imported module belongs to; of a module in no package, those beside it too."""
    return _digest(part for path in sorted(_files(module)) for part in (bytes(path), _content(path)))


def _files(name: str) -> Iterator[Path]:
    module = sys.modules[name.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if folders or not (own := _file(module)):
        return
    yield own
    # A script, or a plugin's file, with helpers beside it that it has imported.
    if not any(own.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")):
        beside = (_file(each) for each in list(sys.modules.values()))
        yield from {path for path in beside if path and path != own and path.is_relative_to(own.parent)}


def _content(path: Path) -> bytes:
    about = path.stat()
    # Data that lies in a package may be of any size.
    return path.read_bytes() if about.st_size < _LARGE else f"{about.st_size} {about.st_mtime_ns}".encode()


def _file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    path = Path(file) if isinstance(file, str) else None
    return path.resolve() if path and path.is_file() else None


def _value_digest(implementation: Any) -> str | None:
    from datasets.fingerprint import Hasher

    try:
        return Hasher.hash(implementation)
    except Exception:  # pickling fails in as many ways as there are objects
        return None


def _digest(parts: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.hexdigest()
