"""One plugin: what became of it, what it contributed, and what is wrong with it."""

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
from smolora_core.plugins.loading import Loaded, describe
from smolora_core.plugins.registry import Registered

_HOOKS: dict[str, Callable[..., Any]] = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("smolora_")}


@attrs.frozen
class Plugin:
    """A plugin as listings show it.

    Attributes:
        seconds: how long its import took.
        components: what it contributed.
        problems: what is wrong with it; a failed plugin has at least one.
        hooks: the pluggy manager that holds it and nobody else, once loaded.
    """

    origin: Origin
    state: Literal["loaded", "blocked", "failed"]
    seconds: float = 0.0
    components: tuple[Registered[Component], ...] = ()
    problems: tuple[Problem, ...] = ()
    hooks: pluggy.PluginManager | None = attrs.field(default=None, repr=False, eq=False)

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call one of its hooks, running generators to their end; a plugin without the hook answers nothing."""
        answers = getattr(self.hooks.hook, hook)(**arguments) if self.hooks else ()
        return [tuple(answer) if isinstance(answer, Iterator) else answer for answer in answers]


def admit(loaded: Loaded) -> Plugin:
    """Register what was loaded, check its functions and collect its records."""
    origin, where = loaded.origin, f"{loaded.origin.title}:"
    if loaded.error is not None:
        problem = Problem(f"cannot be imported ({describe(loaded.error)})", where=where)
        return Plugin(origin, "failed", loaded.seconds, problems=(problem,))
    # Each has a pluggy manager of its own, because pluggy compares and hashes plugins, and theirs need not stand that.
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
    components: list[Registered[Component]] = []
    for hook, record in CONTRIBUTIONS.items():
        for contributed in _contributed(getattr(hooks.hook, hook), record, where):
            if isinstance(contributed, Problem):
                problems.append(contributed)
            else:
                components.append(Registered(contributed, origin))
    if not implemented and not problems:
        hint = "write a smolora_* function and put @hookimpl above it"
        problems.append(Problem("implements no hook", where=where, hint=hint))
    return Plugin(origin, "loaded", loaded.seconds, tuple(components), tuple(problems), hooks)


def _misused(plugin: object, hooks: pluggy.PluginManager, where: str) -> Iterator[Problem]:
    """Name the functions that look like hooks and never run, and the arguments that no hook has."""
    for name in sorted(name for name in dir(plugin) if name.startswith("smolora_")):
        if not inspect.isroutine(inspect.getattr_static(plugin, name, None)):
            continue
        marked = hooks.parse_hookimpl_opts(plugin, name)
        if marked is not None and (marked["optionalhook"] or marked["specname"]):
            continue
        if name not in _HOOKS:
            yield Problem(f"{name} is no hook", where=where, hint=did_you_mean(name, _HOOKS))
        elif marked is None:
            yield Problem(f"{name} is not marked and never runs", where=where, hint="put @hookimpl above it")
        else:
            yield from _misspelt_arguments(name, getattr(plugin, name), where)


def _misspelt_arguments(hook: str, function: Callable[..., Any], where: str) -> Iterator[Problem]:
    offered = inspect.signature(_HOOKS[hook]).parameters
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in offered and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            hint = did_you_mean(name, offered) or "it takes none"
            yield Problem(f"{hook} has no argument {name!r}", where=where, hint=hint)


def _contributed(hook: pluggy.HookCaller, record: type[Component], where: str) -> Iterator[Component | Problem]:
    """Call a contribution hook and check what it gives; whatever it does is a problem at worst."""
    due = f"return an iterable of {record.__name__} records"
    try:
        answers = hook()
        if len(answers) < len(hook.get_hookimpls()):
            yield Problem(f"{hook.name} returned None", where=where, hint=due)
        for answer in answers:
            if isinstance(answer, str) or not isinstance(answer, Iterable):
                yield Problem(f"{hook.name} returned {type(answer).__name__}", where=where, hint=due)
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
            what = f"{hook} gave {type(offered).__name__}"
            yield Problem(what, where=where, hint=f"it gives {record.__name__} records")
        elif offered.name in names:
            yield Problem(f"{hook} gave two records named {offered.name!r}", where=where, hint="the first one counts")
        else:
            names.add(offered.name)
            yield offered
