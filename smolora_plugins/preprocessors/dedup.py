"""Drop repeated rows."""

from hashlib import blake2b
from typing import Any

from smolora_core import Drop
from smolora_plugins.preprocessors.columns import canonical, column


class Dedup:
    """Remember a 16-byte hash of each row, and drop rows seen before."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._fields = fields
        self._seen: set[bytes] = set()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | Drop:
        """Keep the first of equal rows.

        Raises:
            DatasetError: a column is missing.
        """
        content = [column(row, field) for field in self._fields] if self._fields else row
        digest = blake2b(canonical(content), digest_size=16).digest()
        if digest in self._seen:
            return Drop("repeats an earlier row")
        self._seen.add(digest)
        return row
