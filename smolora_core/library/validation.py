"""Validate function arguments as a config is validated, with the same messages."""

import inspect
import reprlib
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import attrs

from smolora_core.config.conversion import convert
from smolora_core.config.schema import fields_of
from smolora_core.errors import ConfigError, PluginError, nearest

P = ParamSpec("P")
R = TypeVar("R")


def validate_inputs(**validators: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a decorator that validates arguments on every call, before the function runs.

    Args:
        validators: the requirement for each argument, by name: a type (`int`, `float | None`, `Literal["mean", "sum"]`, or any
            class), a predicate that returns False or raises ValueError for an invalid value, or an attrs validator. Default
            values are not validated.

    Raises:
        ConfigError: on a call, with one problem per invalid argument; on decoration, for a name that is not a parameter.

    Example:
        >>> @validate_inputs(gamma=float)
        ... def focal(gamma): ...
        >>> focal("2")
        Traceback (most recent call last):
        smolora_core.errors.ConfigError: focal() gamma must be a number, got '2'
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
            raise ConfigError(f"has no parameter {unknown!r}", where=where, hint=nearest(unknown, signature.parameters))

        @wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            # A call that does not match the signature raises Python's own TypeError here.
            given = {**signature.bind(*arguments, **named).arguments, **named}
            names = tuple(name for name in fields if name in given)
            convert({name: given[name] for name in names}, section(names), dict.fromkeys(names, where))
            return function(*arguments, **named)

        return call

    return decorate


def _field(name: str, validator: Any) -> Any:
    parameters = _parameter_count(validator)
    if parameters == 3:
        return attrs.field(type=Any, validator=validator, alias=name)
    if parameters == 1 or inspect.isroutine(validator):
        words = getattr(validator, "__name__", "<lambda>").removeprefix("is_").replace("_", " ")
        expected = "valid" if words == "<lambda>" else words
        return attrs.field(type=Any, validator=_check(validator, expected), alias=name)
    try:
        fields_of(attrs.make_class("Argument", {name: attrs.field(type=validator)}))
    except PluginError:
        expected = f"a {getattr(validator, '__name__', validator)}"
        return attrs.field(type=Any, validator=_check(lambda value: isinstance(value, validator), expected), alias=name)
    return attrs.field(type=validator, alias=name)


def _parameter_count(validator: Any) -> int:
    """Count a function's parameters; 0 for a type."""
    is_function = callable(validator) and not isinstance(validator, type) and not hasattr(validator, "__origin__")
    return len(inspect.signature(validator).parameters) if is_function else 0


def _check(accepts: Callable[[Any], Any], expected: str) -> Callable[[Any, Any, Any], None]:
    def check(instance: object, field: "attrs.Attribute[Any]", value: Any) -> None:
        if accepts(value) is False:
            raise ValueError(f"must be {expected}, got {reprlib.repr(value)}")

    return check
