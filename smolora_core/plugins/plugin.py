"""One plugin: its state, the components it contributes, and its problems."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import attrs
import pluggy

from smolora_core import hookspecs
from smolora_core.components import Component
from smolora_core.errors import Problem, SmoLoRAError, did_you_mean
from smolora_core.hookspecs import CONTRIBUTIONS, PROJECT
from smolora_core.plugins.discovery import Origin
from smolora_core.plugins.loading import Loaded, attributing_errors, describe
from smolora_core.plugins.registry import Registered

_HOOKS: dict[str, Callable[..., Any]] = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("smolora_")}


@attrs.frozen
class Plugin:
    """A plugin and what became of it.

    Attributes:
        state: `blocked` for a plugin that is not imported, `failed` for one whose import or registration failed.
        seconds: the duration of its import.
        hooks: a pluggy manager with this plugin only, once it is loaded.
    """

    origin: Origin
    state: Literal["loaded", "blocked", "failed"]
    seconds: float = 0.0
    components: tuple[Registered[Component], ...] = ()
    problems: tuple[Problem, ...] = ()
    hooks: pluggy.PluginManager | None = attrs.field(default=None, repr=False, eq=False)

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call one of its hooks and exhaust generators; return nothing if the plugin does not implement the hook.

        What it raises gets a note with its origin.
        """
        with attributing_errors(self.origin, f"calling {hook}"):
            answers = getattr(self.hooks.hook, hook)(**arguments) if self.hooks else ()
            return [tuple(answer) if isinstance(answer, Iterator) else answer for answer in answers]


def admit(loaded: Loaded) -> Plugin:
    """Register an imported plugin, check its functions and collect its records."""
    origin, where = loaded.origin, f"{loaded.origin.title}:"
    if loaded.error is not None:
        problem = Problem(f"cannot be imported ({describe(loaded.error)})", where=where)
        return Plugin(origin, "failed", loaded.seconds, problems=(problem,))
    # One pluggy manager per plugin, because pluggy compares and hashes plugins, which an object may not support.
    hooks = pluggy.PluginManager(PROJECT)
    hooks.add_hookspecs(hookspecs)
    problems: list[Problem] = []
    try:
        problems += _misused(loaded.plugin, hooks, where)
        hooks.register(loaded.plugin)
        implemented = hooks.get_hookcallers(loaded.plugin)
    except Exception as error:
        problems = problems or [Problem(f"cannot be registered ({describe(error)})", where=where)]
        return Plugin(origin, "failed", loaded.seconds, problems=tuple(problems))
    offered = [each for name, kind in CONTRIBUTIONS.items() for each in _contributed(getattr(hooks.hook, name), kind, where)]
    problems += [each for each in offered if isinstance(each, Problem)]
    components = tuple(Registered(each, origin) for each in offered if not isinstance(each, Problem))
    if not implemented and not problems:
        problems.append(Problem("implements no hooks", where=where, hint="decorate a smolora_* function with @hookimpl"))
    return Plugin(origin, "loaded", loaded.seconds, components, tuple(problems), hooks)


def _misused(plugin: object, hooks: pluggy.PluginManager, where: str) -> Iterator[Problem]:
    """Report functions that look like hooks but would never run, and arguments that their hooks do not have."""
    for name in sorted(name for name in dir(plugin) if name.startswith("smolora_")):
        if not inspect.isroutine(inspect.getattr_static(plugin, name, None)):
            continue
        marked = hooks.parse_hookimpl_opts(plugin, name)
        if marked is not None and (marked["optionalhook"] or marked["specname"]):
            continue
        if name not in _HOOKS:
            yield Problem(f"{name} is not a hook", where=where, hint=did_you_mean(name, _HOOKS))
        elif marked is None:
            yield Problem(f"{name} never runs", where=where, hint="decorate it with @hookimpl")
        else:
            offered = inspect.signature(_HOOKS[name]).parameters
            for argument, parameter in inspect.signature(getattr(plugin, name)).parameters.items():
                if argument not in offered and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    hint = did_you_mean(argument, offered) or "it takes none"
                    yield Problem(f"{name} has no argument {argument!r}", where=where, hint=hint)


def _contributed(hook: pluggy.HookCaller, record: type[Component], where: str) -> Iterator[Component | Problem]:
    """Call a contribution hook and check its records; whatever it does is at worst a problem."""
    hint = f"it must return an iterable of {record.__name__} records"
    try:
        answers = hook()
        if len(answers) < len(hook.get_hookimpls()):
            yield Problem(f"{hook.name} returned None", where=where, hint=hint)
        for answer in answers:
            if isinstance(answer, str) or not isinstance(answer, Iterable):
                yield Problem(f"{hook.name} returned {type(answer).__name__}", where=where, hint=hint)
            else:
                yield from _checked(answer, hook.name, record, where)
    except SmoLoRAError as error:
        for problem in error.problems:
            yield attrs.evolve(problem, where=f"{where} {problem.where}".rstrip())
    except (Exception, SystemExit) as error:
        yield Problem(f"{hook.name} raised {describe(error)}", where=where)


def _checked(answer: Iterable[Any], hook: str, record: type[Component], where: str) -> Iterator[Component | Problem]:
    names: set[str] = set()
    for offered in answer:
        if not isinstance(offered, record):
            yield attrs.evolve(wrong_type(hook, offered, record), where=where)
        elif offered.name in names:
            yield Problem(f"{hook} returned two records named {offered.name!r}", where=where, hint="only the first is used")
        else:
            names.add(offered.name)
            yield offered


def wrong_type(hook: str, offered: Any, wanted: type) -> Problem:
    """Describe an object that a hook returned in place of one of the wanted type; the place is left to the caller."""
    noun = "records" if attrs.has(wanted) else "objects"
    return Problem(f"{hook} returned {type(offered).__name__}", hint=f"it must return {wanted.__name__} {noun}")
