"""Events: every figure that a person sees is also a line of events.jsonl."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Event", "EventLog", "read_events"]


@attrs.frozen
class Event:
    """One thing that happened in a run.

    Attributes:
        kind: `data`, `targets`, `log`, `eval`, `checkpoint`, `warning`, ...
        values: plain values, JSON as they are.
    """

    kind: str
    values: dict[str, Any]


class EventLog:
    """Appends events to a file and passes them on to a listener."""

    def __init__(self, path: Path, listener: Callable[[Event], None]) -> None:
        """Open a log.

        Args:
            path: events.jsonl of the run.
            listener: shows events to a person.
        """
        self._path = path
        self._listener = listener

    def emit(self, kind: str, **values: Any) -> None:
        """Write an event and show it."""
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **values}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        self._listener(Event(kind, values))


def read_events(path: Path) -> list[Event]:
    """Read events back; a last line that a crash tore is left out."""
    events = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        values.pop("time")
        events.append(Event(values.pop("event"), values))
    return events
