"""Validators for the fields of config sections and of plugin options; their messages name the field.

    @attrs.frozen(kw_only=True)
    class Focal:
        gamma: float = attrs.field(default=2.0, validator=at_least(0))

None always passes: the field's type decides whether it is optional.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from smolora_core.errors import ConfigError

Validator = Callable[[Any, Any, Any], None]


def above(limit: float) -> Validator:
    """Require a finite number above a limit."""
    return require(lambda value: limit < value < math.inf, f"above {limit}")


def at_least(limit: float) -> Validator:
    """Require a finite number of at least a limit."""
    return require(lambda value: limit <= value < math.inf, f"at least {limit}")


def each_above(limit: float) -> Validator:
    """Require that every number of a mapping or a non-empty list is above a limit."""

    def check(instance: object, attribute: Any, values: Mapping[str, float] | Iterable[float] | None) -> None:
        if isinstance(values, Mapping):
            wrong = [f"{name}: {number!r}" for name, number in values.items() if not limit < number < math.inf]
        elif values is not None:
            numbers = list(values)
            if not numbers:
                raise ConfigError(f"{attribute.name} is an empty list")
            wrong = [repr(number) for number in numbers if not limit < number < math.inf]
        else:
            return
        if wrong:
            raise ConfigError(f"{attribute.name} must contain only numbers above {limit}, got {', '.join(wrong)}")

    return check


def require(fits: Callable[[Any], bool], expected: str) -> Validator:
    """Make a validator from a predicate and the words that follow "must be" in its message."""

    def check(instance: object, attribute: Any, value: Any) -> None:
        if value is not None and not fits(value):
            raise ConfigError(f"{attribute.name} must be {expected}, got {value!r}")

    return check


def seconds_of(duration: str) -> int | None:
    """Read a duration of hours, minutes and seconds, such as `1h30m`; None if it is not one, or is 0.

    Example:
        >>> seconds_of("1h30m"), seconds_of("90s"), seconds_of("soon")
        (5400, 90, None)
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", duration.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return hours * 3600 + minutes * 60 + seconds or None


fraction = require(lambda value: not isinstance(value, int | float) or 0 < value < 1, "between 0 and 1")
"""Require a number strictly between 0 and 1; values that are not numbers pass."""

probability = require(lambda value: 0 <= value < 1, "at least 0 and below 1")
"""Require a number of at least 0 and below 1."""
