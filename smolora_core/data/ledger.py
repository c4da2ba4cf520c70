"""Account for every row: read, kept, dropped and why, split, truncated."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

import attrs

_SAMPLES = 3


@attrs.define
class _Dropped:
    rows: int = 0
    lost: bool = False
    largest: int | None = None
    samples: list[str] = attrs.field(factory=list)

    def add(self, other: "_Dropped") -> None:
        self.rows += other.rows
        self.lost = other.lost
        sizes = [size for size in (self.largest, other.largest) if size is not None]
        self.largest = max(sizes, default=None)
        self.samples = [*self.samples, *other.samples][:_SAMPLES]


@attrs.define
class _Passed:
    rows_in: int = 0
    rows_out: int = 0


@attrs.define
class Ledger:
    """The account of the rows of one source.

    Rows in equal rows out: `read + added = kept + dropped` whenever no row is in flight.

    Attributes:
        read: rows read from the source.
        added: extra rows that preprocessors made out of one.
        kept: rows that became sequences.
        sequences: token sequences made of them; more than `kept` if texts were split.
        truncated: rows that lost tokens at their end.
        tokens: tokens in all sequences.
        supervised: tokens that the loss sees.
        tokens_lost: tokens lost to truncation.
        open_ended: supervised spans without an end token.
    """

    read: int = 0
    added: int = 0
    kept: int = 0
    sequences: int = 0
    truncated: int = 0
    tokens: int = 0
    supervised: int = 0
    tokens_lost: int = 0
    open_ended: int = 0
    _dropped: dict[tuple[str, str], _Dropped] = attrs.field(factory=dict)
    _steps: dict[str, _Passed] = attrs.field(factory=dict)

    def drop(self, step: str, reason: str, where: str, size: int | None = None, *, lost: bool = False) -> None:
        """Count a row that a step drops.

        Args:
            step: the step's name.
            reason: the reason, the same text for every row with the same problem.
            where: the row's place.
            size: the measure behind the reason, of which the ledger keeps the largest.
            lost: whether the row was unusable, rather than dropped on request.
        """
        self._dropped.setdefault((step, reason), _Dropped()).add(_Dropped(1, lost, size, [where]))

    def passed(self, step: str, rows_in: int, rows_out: int) -> None:
        """Count the rows that went into a step and came out of it."""
        counts = self._steps.setdefault(step, _Passed())
        counts.rows_in += rows_in
        counts.rows_out += rows_out

    def add(self, other: "Ledger") -> None:
        """Merge the ledger of the rows that follow into this one."""
        for field in _counts():
            setattr(self, field, getattr(self, field) + getattr(other, field))
        for key, dropped in other._dropped.items():
            self._dropped.setdefault(key, _Dropped()).add(dropped)
        for step, counts in other._steps.items():
            self.passed(step, counts.rows_in, counts.rows_out)

    @property
    def dropped(self) -> int:
        """The rows that did not become sequences."""
        return sum(entry.rows for entry in self._dropped.values())

    @property
    def lost(self) -> int:
        """The rows that were unusable."""
        return sum(entry.rows for entry in self._dropped.values() if entry.lost)

    @property
    def reasons(self) -> Counter[str]:
        """The dropped rows by reason."""
        counted: Counter[str] = Counter()
        for (step, reason), entry in self._dropped.items():
            largest = "" if entry.largest is None else f" (the longest: {entry.largest})"
            counted[f"{step}: {reason}{largest}"] += entry.rows
        return counted

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values, as in ledger.json."""
        steps = [self._step(step, counts) for step, counts in self._steps.items()]
        dropped = [
            {"step": step, "reason": reason, **attrs.asdict(entry, filter=lambda field, value: value is not None)}
            for (step, reason), entry in self._dropped.items()
        ]
        return {**{field: getattr(self, field) for field in _counts()}, "steps": steps, "dropped": dropped}

    def _step(self, step: str, counts: _Passed) -> dict[str, Any]:
        dropped = sum(entry.rows for (at, _), entry in self._dropped.items() if at == step)
        added = counts.rows_out - counts.rows_in + dropped
        return {"step": step, **attrs.asdict(counts), "dropped": dropped, "added": added}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Restore a ledger from `as_dict`."""
        ledger = cls(**{field: values[field] for field in _counts()})
        for entry in values["steps"]:
            ledger.passed(entry["step"], entry["rows_in"], entry["rows_out"])
        for entry in values["dropped"]:
            dropped = _Dropped(entry["rows"], entry["lost"], entry.get("largest"), list(entry["samples"]))
            ledger._dropped[entry["step"], entry["reason"]] = dropped
        return ledger


def _counts() -> list[str]:
    return [field.name for field in attrs.fields(Ledger) if not field.name.startswith("_")]
