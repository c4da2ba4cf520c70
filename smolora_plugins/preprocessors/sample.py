"""Take a part of the rows."""

from hashlib import blake2b
from typing import Any

from smolora_core import Drop
from smolora_plugins.preprocessors.columns import canonical


class Sample:
    """Lets a fraction of the rows through, and no more than a number of them."""

    def __init__(self, fraction: float | None, rows: int | None) -> None:
        self._fraction = fraction
        self._rows = rows
        self._taken = 0

    def __call__(self, row: dict[str, Any], context: Any) -> dict[str, Any] | Drop:
        """Judge a row by its content and the seed alone, but for the number of rows before it."""
        if self._fraction is not None and _place(row, context.seed) >= self._fraction:
            return Drop(f"outside the sample of {self._fraction:g}")
        if self._taken == self._rows:
            return Drop(f"beyond the first {self._rows} rows")
        self._taken += 1
        return row


def _place(row: dict[str, Any], seed: int) -> float:
    """Place a row between 0 and 1, elsewhere than `data.eval` does, or a sample of the rows it leaves would be none."""
    digest = blake2b(canonical(row), digest_size=8, key=f"sample {seed}".encode()).digest()
    return int.from_bytes(digest, "big") / 2**64
