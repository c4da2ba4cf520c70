"""The account of every row: read, kept, dropped and why, split, truncated."""

from collections import Counter
from typing import Any

import attrs

__all__ = ["Ledger"]

_SAMPLES = 3


@attrs.define
class _Dropped:
    rows: int = 0
    samples: list[str] = attrs.field(factory=list)


@attrs.define
class Ledger:
    """What became of the rows of one source.

    Rows in equal rows out: `read + added = kept + dropped` at any time after a row has been accounted for.

    Attributes:
        read: rows that came from the source.
        added: rows that preprocessors made of others beyond the first.
        kept: rows that became sequences.
        sequences: token sequences made of them; more than `kept` where long texts were split.
        truncated: rows that lost tokens at their end.
        tokens: tokens in all sequences.
        supervised: tokens that the loss sees.
        tokens_lost: tokens cut off.
    """

    read: int = 0
    added: int = 0
    kept: int = 0
    sequences: int = 0
    truncated: int = 0
    tokens: int = 0
    supervised: int = 0
    tokens_lost: int = 0
    _dropped: dict[tuple[str, str], _Dropped] = attrs.field(factory=dict)

    def drop(self, step: str, reason: str, where: str) -> None:
        """Account for a row that leaves at a step."""
        entry = self._dropped.setdefault((step, reason), _Dropped())
        entry.rows += 1
        if len(entry.samples) < _SAMPLES:
            entry.samples.append(where)

    @property
    def dropped(self) -> int:
        """Rows that did not become sequences."""
        return sum(entry.rows for entry in self._dropped.values())

    @property
    def reasons(self) -> Counter[str]:
        """Dropped rows by reason."""
        counted: Counter[str] = Counter()
        for (step, reason), entry in self._dropped.items():
            counted[f"{step}: {reason}"] += entry.rows
        return counted

    def as_dict(self) -> dict[str, Any]:
        """The account as it is written to ledger.json."""
        values = {field.name: getattr(self, field.name) for field in attrs.fields(Ledger) if not field.name.startswith("_")}
        dropped = [
            {"step": step, "reason": reason, "rows": entry.rows, "samples": entry.samples}
            for (step, reason), entry in self._dropped.items()
        ]
        return {**values, "dropped": dropped}
