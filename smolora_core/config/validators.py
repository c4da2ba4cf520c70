"""Validators for the fields of config sections and of plugins' options, with messages that name the field.

    @attrs.frozen(kw_only=True)
    class Focal:
        gamma: float = attrs.field(default=2.0, validator=at_least(0))

A value of None passes: whether a field may be left out is for its type to say.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from smolora_core.errors import ConfigError

Validator = Callable[[Any, Any, Any], None]


def above(limit: float) -> Validator:
    """Require a finite number above a limit."""
    return _require(lambda value: limit < value < math.inf, f"above {limit}")


def at_least(limit: float) -> Validator:
    """Require a finite number of at least a limit."""
    return _require(lambda value: limit <= value < math.inf, f"at least {limit}")


def probability(instance: object, attribute: Any, value: Any) -> None:
    """Require a number of at least 0 and below 1."""
    _require(lambda value: 0 <= value < 1, "at least 0 and below 1")(instance, attribute, value)


def fraction(instance: object, attribute: Any, value: Any) -> None:
    """Require a number between 0 and 1, neither of them included; what is not a number passes."""
    if isinstance(value, int | float) and not 0 < value < 1:
        raise ConfigError(f"{attribute.name} must lie between 0 and 1, is {value!r}")


def each_above(limit: float) -> Validator:
    """Require that all numbers of a list or a mapping are above a limit, and that a list is not empty."""

    def check(instance: object, attribute: Any, values: Mapping[str, float] | Iterable[float] | None) -> None:
        if isinstance(values, Mapping):
            if wrong := [f"{name}: {number!r}" for name, number in values.items() if not limit < number < math.inf]:
                raise ConfigError(f"{attribute.name} must hold numbers above {limit}, has {', '.join(wrong)}")
        elif values is not None:
            numbers = list(values)
            if not numbers:
                raise ConfigError(f"{attribute.name} is an empty list")
            if wrong := [repr(number) for number in numbers if not limit < number < math.inf]:
                raise ConfigError(f"{attribute.name} must hold numbers above {limit}, has {', '.join(wrong)}")

    return check


def _require(fits: Callable[[Any], bool], what: str) -> Validator:
    def check(instance: object, attribute: Any, value: Any) -> None:
        if value is not None and not fits(value):
            raise ConfigError(f"{attribute.name} must be {what}, is {value!r}")

    return check
