"""Check what functions are given, with the messages that a config would get."""

import inspect
import reprlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import attrs

from smolora_core.config.convert import convert
from smolora_core.config.schema import fields_of
from smolora_core.errors import ConfigError, PluginError, nearest

P = ParamSpec("P")
R = TypeVar("R")


def validate_inputs(**validators: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator that checks arguments at each call, all of them before the function runs.

    Args:
        validators: by the name of an argument, what it must be: a type (`int`, `float | None`, `Literal["mean", "sum"]`, or
            any class); a function of the value that returns whether it will do, or raises a ValueError that says why not; or
            a validator of attrs. Defaults of the function are not checked.

    Raises:
        ConfigError: when called, with one problem for each argument that will not do; when decorating, for a name that the
            function does not take.

    Example:
        >>> @validate_inputs(gamma=float)
        ... def focal(gamma): ...
        >>> focal("2")
        Traceback (most recent call last):
        smolora_core.errors.ConfigError: focal() gamma must be a number, is '2'
    """
    fields = {name: _field(name, validator) for name, validator in validators.items()}

    @cache
    def section(names: tuple[str, ...]) -> type[Any]:
        return attrs.make_class("Arguments", {name: fields[name] for name in names}, frozen=True)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        where = f"{function.__qualname__.rpartition('<locals>.')[2]}()"
        takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        if not takes_any and (unknown := next((name for name in fields if name not in signature.parameters), None)):
            raise ConfigError(f"takes no {unknown!r}", where=where, hint=nearest(unknown, signature.parameters))

        @wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            # What does not fit the signature is Python's to refuse.
            given = {**signature.bind(*arguments, **named).arguments, **named}
            names = tuple(name for name in fields if name in given)
            convert({name: given[name] for name in names}, section(names), dict.fromkeys(names, where))
            return function(*arguments, **named)

        return call

    return decorate


def _field(name: str, validator: Any) -> Any:
    if inspect.isroutine(validator) or _takes(validator) in (1, 3):
        return attrs.field(type=Any, validator=validator if _takes(validator) == 3 else _judging(validator), alias=name)
    try:
        fields_of(attrs.make_class("Argument", {name: attrs.field(type=validator)}))
    except PluginError:
        return attrs.field(type=Any, validator=_instance_of(validator), alias=name)
    return attrs.field(type=validator, alias=name)


def _takes(validator: Any) -> int:
    """Count the arguments of a function; a type is none."""
    is_function = callable(validator) and not isinstance(validator, type) and not hasattr(validator, "__origin__")
    return len(inspect.signature(validator).parameters) if is_function else 0


def _judging(judge: Callable[[Any], Any]) -> Callable[[Any, Any, Any], None]:
    """Make a validator of attrs of a function of the value; the function's name says what is due."""

    def check(instance: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if judge(value) is False:
            words = getattr(judge, "__name__", "<lambda>").removeprefix("is_").replace("_", " ")
            due = "something else" if words == "<lambda>" else words
            raise ValueError(f"must be {due}, is {reprlib.repr(value)}")

    return check


def _instance_of(kind: Any) -> Callable[[Any, Any, Any], None]:
    def check(instance: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kind):
            raise ValueError(f"must be a {getattr(kind, '__name__', kind)}, is {reprlib.repr(value)}")

    return check
