"""Import plugins one by one, each isolated and timed, and the implementations of the components that were chosen."""

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import isclass
from typing import Any

import attrs

from smolora_core.errors import PluginError, did_you_mean
from smolora_core.plugins.discovery import Candidate, Origin
from smolora_core.plugins.registry import Registered

__all__ = ["SLOW_IMPORT_SECONDS", "Loaded", "build", "load", "noting"]

SLOW_IMPORT_SECONDS = 5.0


@attrs.frozen
class Loaded:
    """What became of a candidate: the plugin, or the error that its import raised."""

    origin: Origin
    seconds: float
    plugin: object | None = None
    error: BaseException | None = None


def load(candidate: Candidate, warn: Callable[[str], None]) -> Loaded:
    """Import one plugin and outlive whatever it does, a call of `sys.exit` included.

    Args:
        candidate: what to import.
        warn: told while an import takes longer than `SLOW_IMPORT_SECONDS`, so that a plugin that hangs is named.
    """
    origin = candidate.origin
    watch = threading.Timer(
        SLOW_IMPORT_SECONDS, warn, [f"plugin '{origin.plugin}' ({origin}) is still importing after {SLOW_IMPORT_SECONDS:.0f} s"]
    )
    watch.daemon = True
    watch.start()
    start = time.perf_counter()
    try:
        plugin = candidate.load()
    except (Exception, SystemExit) as error:
        return Loaded(origin, time.perf_counter() - start, error=error)
    finally:
        watch.cancel()
    return Loaded(origin, time.perf_counter() - start, plugin=plugin)


def build(chosen: Registered, options: Any = None) -> Any:
    """Import a component's implementation and bind its options.

    Args:
        chosen: the component and its origin.
        options: an instance of the component's options class; its defaults when None.

    Returns:
        A class made with the options as keyword arguments, a function with them bound, or the implementation itself.

    Raises:
        PluginError: the implementation does not exist, or cannot be imported.
    """
    component = chosen.component
    implementation = _find(chosen) if isinstance(component.implementation, str) else component.implementation
    if options is None and component.options is not None:
        options = component.options()
    arguments = {} if options is None else attrs.asdict(options, recurse=False)
    with noting(chosen.origin, f"making {component.name!r}"):
        if isclass(implementation):
            return implementation(**arguments)
    return partial(implementation, **arguments) if arguments else implementation


@contextmanager
def noting(origin: Origin, doing: str) -> Iterator[None]:
    """Let a plugin's own exception keep its type and say whose it is."""
    try:
        yield
    except Exception as error:
        error.add_note(f"raised by plugin '{origin.plugin}' ({origin}) while {doing}")
        raise


def _find(chosen: Registered) -> Any:
    component, origin = chosen.component, chosen.origin
    assert isinstance(component.implementation, str)
    module_name, _, attribute = component.implementation.partition(":")
    where = f"{component.name!r} of plugin '{origin.plugin}' ({origin}):"
    try:
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(f"{module_name} cannot be imported ({error})", where=where) from error
    try:
        found: Any = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise PluginError(
            f"{module_name} has no {attribute!r}", where=where, hint=did_you_mean(attribute, vars(module))
        ) from error
    return found
