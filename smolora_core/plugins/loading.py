"""Import plugins, each isolated and timed, and the implementations of selected components."""

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import isclass
from operator import attrgetter
from typing import Any, cast

import attrs

from smolora_core.components import Component
from smolora_core.errors import PluginError, nearest
from smolora_core.plugins.discovery import Candidate, Origin
from smolora_core.plugins.registry import Registered

SLOW_IMPORT_SECONDS = 5.0


@attrs.frozen
class Loaded:
    """An imported plugin, or the error that its import raised."""

    origin: Origin
    seconds: float
    plugin: object | None = None
    error: BaseException | None = None


def load(candidate: Candidate, warn: Callable[[str], None], warn_after: float = SLOW_IMPORT_SECONDS) -> Loaded:
    """Import one plugin and survive whatever it does, including `sys.exit`; warn from another thread while it hangs."""
    origin = candidate.origin
    watch = threading.Timer(warn_after, warn, [f"{origin.title} is still importing after {warn_after:g} s"])
    watch.daemon = True
    watch.start()
    start = time.perf_counter()
    try:
        plugin = candidate.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Loaded(origin, time.perf_counter() - start, error=error)
    finally:
        watch.cancel()
    return Loaded(origin, time.perf_counter() - start, plugin=plugin)


def describe(error: BaseException) -> str:
    """Return an exception's type and message in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_with_notes(error: BaseException) -> str:
    """Return what `describe` does, with the exception's notes."""
    return " ".join([describe(error), *getattr(error, "__notes__", ())])


def clean_up(action: Callable[[], object], error: BaseException | None, warn: Callable[[str], object]) -> None:
    """Run an action after a run; turn its failure into a note of the error that ended the run, or a warning without one."""
    try:
        action()
    except Exception as failure:
        text = describe_with_notes(failure)
        if error is not None:
            error.add_note(f"then the cleanup raised {text}")
        else:
            warn(text)


def build(chosen: Registered[Component], options: Any = None) -> Any:
    """Import a component's implementation and bind its options.

    Args:
        chosen: the component and its origin.
        options: an instance of the component's options class; None for the defaults.

    Returns:
        An instance of a class made with the options as keyword arguments, or a function with the options bound.

    Raises:
        PluginError: the implementation does not exist, cannot be imported or called, or lacks required options.
    """
    component, origin = chosen.component, chosen.origin
    where = f"{component.noun} {component.name!r} of {origin.title}:"
    implementation = component.implementation
    if isinstance(implementation, str):
        implementation = _import(implementation, origin, where)
    arguments = _arguments(component, options, where)
    if isclass(implementation):
        with attributing_errors(origin, f"building {component.name!r}"):
            return implementation(**arguments)
    return partial(implementation, **arguments) if arguments else implementation


@contextmanager
def attributing_errors(origin: Origin, doing: str) -> Iterator[None]:
    """Name the plugin in a note of the exceptions it raises; turn `sys.exit`, which may report success, into a PluginError."""
    try:
        yield
    except SystemExit as error:
        raise PluginError(f"called sys.exit({error.code!r}) while {doing}", where=f"{origin.title}:") from error
    except Exception as error:
        error.add_note(f"raised by {origin.title} while {doing}")
        raise


def _import(target: str, origin: Origin, where: str) -> Callable[..., Any]:
    module_name, _, attribute = target.partition(":")
    try:
        with attributing_errors(origin, f"importing {module_name}"):
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise PluginError(f"{module_name} cannot be imported ({describe(error)})", where=where) from error
    try:
        found = attrgetter(attribute)(module)
    except AttributeError as error:
        hint = nearest(attribute, vars(module))
        raise PluginError(f"{module_name} has no attribute {attribute!r}", where=where, hint=hint) from error
    if not callable(found):
        raise PluginError(f"{target} is neither a function nor a class", where=where)
    return cast("Callable[..., Any]", found)


def _arguments(component: Component, options: Any, where: str) -> dict[str, Any]:
    if component.options is None:
        return {}
    fields = [field for field in attrs.fields(component.options) if field.init]
    if options is None:
        missing = [repr(field.alias) for field in fields if field.default is attrs.NOTHING]
        if missing:
            raise PluginError(f"missing required options: {', '.join(missing)}", where=where)
        options = component.options()
    return {str(field.alias): getattr(options, field.name) for field in fields}
