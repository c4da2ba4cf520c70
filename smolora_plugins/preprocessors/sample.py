"""Keep a sample of the rows."""

from hashlib import blake2b
from typing import Any

from smolora_core import Drop
from smolora_plugins.preprocessors.columns import canonical


class Sample:
    """Keep a fraction of the rows, and at most `rows` of them."""

    def __init__(self, fraction: float | None, rows: int | None) -> None:
        self._fraction = fraction
        self._rows = rows
        self._kept = 0

    def __call__(self, row: dict[str, Any], context: Any) -> dict[str, Any] | Drop:
        """Keep or drop a row by its content and the seed, until `rows` are kept."""
        if self._fraction is not None and _position(row, context.seed) >= self._fraction:
            return Drop(f"outside the sample of {self._fraction:g}")
        if self._kept == self._rows:
            return Drop(f"beyond the first {self._rows} rows")
        self._kept += 1
        return row


def _position(row: dict[str, Any], seed: int) -> float:
    """Hash a row to [0, 1), independently of the hash that `data.eval` splits by."""
    digest = blake2b(canonical(row), digest_size=8, key=f"sample {seed}".encode()).digest()
    return int.from_bytes(digest, "big") / 2**64
