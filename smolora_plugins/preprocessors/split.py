"""Keep one side of the split that `data.eval` makes."""

from typing import Any

from smolora_core import Drop
from smolora_core.data import is_held_out


def split(row: dict[str, Any], *, fraction: float, keep: str) -> dict[str, Any] | Drop:
    """Drop the rows of the other side of the split."""
    held_out = is_held_out(row, fraction)
    if held_out == (keep == "held-out"):
        return row
    return Drop("held out" if held_out else "not held out")
