"""Values of a row, and what is said of one that cannot be used."""

import json
import math
from numbers import Real
from typing import Any

from smolora_core.errors import Problem

DROP = "set data.on_bad_row to drop"
"""What a person can do about a row that cannot be used."""


def describe(value: Any) -> str:
    """Say what a value is: `empty`, `int 3`, `str 'why'`, cut where it is long."""
    if value is None:
        return "empty"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else f'{text[:37]}...'}"


def misfit(column: str, expected: str, value: Any, where: str) -> Problem:
    """Say that a column holds something else than it must."""
    return Problem(f"column {column!r} must be {expected}, is {describe(value)}", where=where, hint=DROP)


def finite(value: Any) -> float | None:
    """Read a number as float; None if it is none, or has no end."""
    if not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def from_json(value: Any) -> Any:
    """Read what may be written as JSON text; any other value, and text that is no JSON, is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
