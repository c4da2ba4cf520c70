"""Events: every figure that a person sees is also a line of events.jsonl."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from smolora_core.errors import DatasetError

__all__ = ["Event", "EventLog", "read_events", "without_repeats"]

_STEPS = ("log", "eval", "checkpoint")


@attrs.frozen
class Event:
    """One thing that happened in a run.

    Attributes:
        kind: `data`, `targets`, `log`, `eval`, `checkpoint`, `warning`, `note`, ...
        values: plain values, JSON as they are.
    """

    kind: str
    values: dict[str, Any]


class EventLog:
    """Appends events to a file and passes them on to a listener."""

    def __init__(
        self, path: Path, listener: Callable[[Event], None], mask: Callable[[Any], Any] = lambda values: values
    ) -> None:
        """Open a log; a last line that a crash tore is cut off, so that no event is appended to it.

        Args:
            path: events.jsonl of the run.
            listener: shows events to a person.
            mask: takes secrets out of what is written and shown.
        """
        self._path = path
        self._listener = listener
        self._mask = mask
        if path.is_file() and not (held := path.read_bytes()).endswith(b"\n"):
            path.write_bytes(held[: held.rfind(b"\n") + 1])

    def emit(self, kind: str, **values: Any) -> None:
        """Write an event and show it; numbers that JSON does not know are written as `"NaN"` and `"Infinity"`."""
        values = self._mask(values)
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **_spelt(values)}, ensure_ascii=False, allow_nan=False)
        # Half a surrogate, as in the name of a file that is not UTF-8, becomes the escape that JSON has for it.
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(line + "\n")
        self._listener(Event(kind, values))


def read_events(path: Path) -> list[Event]:
    """Read events back; a last line that a crash tore is left out.

    Raises:
        DatasetError: any other line is no event.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            del values["time"]
            events.append(Event(values.pop("event"), values))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError("is no event", where=f"{path}:{number}", hint="remove the line") from error
    return events


def without_repeats(events: Sequence[Event]) -> list[Event]:
    """Leave out what a run had done behind the checkpoint it was continued from, and then did again."""
    kept: list[Event] = []
    for event in events:
        if event.kind == "resumed":
            step = event.values["step"]
            kept = [each for each in kept if each.kind not in _STEPS or each.values["step"] <= step]
        kept.append(event)
    return kept


def _spelt(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _spelt(inner) for key, inner in value.items()}
    return [_spelt(inner) for inner in value] if isinstance(value, list | tuple) else value
