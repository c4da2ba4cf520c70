"""The account of every row: read, kept, dropped and why, split, truncated."""

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
    taken: int = 0
    given: int = 0


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
        open_ended: stretches of supervised tokens without a token that ends them.
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
        """Account for a row that leaves at a step.

        Args:
            step: that it leaves at.
            reason: in the same words for all that leave for it.
            where: the row stands.
            size: by what the reason measures.
            lost: whether it could not be used; otherwise a step leaves it out, as it was asked to.
        """
        self._dropped.setdefault((step, reason), _Dropped()).add(_Dropped(1, lost, size, [where]))

    def passed(self, step: str, taken: int, given: int) -> None:
        """Account for rows that a step took and gave."""
        passed = self._steps.setdefault(step, _Passed())
        passed.taken += taken
        passed.given += given

    def add(self, other: "Ledger") -> None:
        """Take the account of the rows that come next into this one."""
        for field in _counts():
            setattr(self, field, getattr(self, field) + getattr(other, field))
        for key, dropped in other._dropped.items():
            self._dropped.setdefault(key, _Dropped()).add(dropped)
        for step, passed in other._steps.items():
            self.passed(step, passed.taken, passed.given)

    @property
    def dropped(self) -> int:
        """Rows that did not become sequences."""
        return sum(entry.rows for entry in self._dropped.values())

    @property
    def lost(self) -> int:
        """Rows that could not be used."""
        return sum(entry.rows for entry in self._dropped.values() if entry.lost)

    @property
    def reasons(self) -> Counter[str]:
        """Dropped rows by reason."""
        counted: Counter[str] = Counter()
        for (step, reason), entry in self._dropped.items():
            largest = "" if entry.largest is None else f" (the longest: {entry.largest})"
            counted[f"{step}: {reason}{largest}"] += entry.rows
        return counted

    def as_dict(self) -> dict[str, Any]:
        """The account as it is written to ledger.json."""
        steps = [self._step(step, passed) for step, passed in self._steps.items()]
        dropped = [
            {"step": step, "reason": reason, **attrs.asdict(entry, filter=lambda field, value: value is not None)}
            for (step, reason), entry in self._dropped.items()
        ]
        return {**{field: getattr(self, field) for field in _counts()}, "steps": steps, "dropped": dropped}

    def _step(self, step: str, passed: _Passed) -> dict[str, Any]:
        dropped = sum(entry.rows for (at, _), entry in self._dropped.items() if at == step)
        added = passed.given - passed.taken + dropped
        return {"step": step, "rows_in": passed.taken, "rows_out": passed.given, "dropped": dropped, "added": added}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read an account back."""
        ledger = cls(**{field: values[field] for field in _counts()})
        for entry in values["steps"]:
            ledger.passed(entry["step"], entry["rows_in"], entry["rows_out"])
        for entry in values["dropped"]:
            dropped = _Dropped(entry["rows"], entry["lost"], entry.get("largest"), list(entry["samples"]))
            ledger._dropped[entry["step"], entry["reason"]] = dropped
        return ledger


def _counts() -> list[str]:
    return [field.name for field in attrs.fields(Ledger) if not field.name.startswith("_")]
