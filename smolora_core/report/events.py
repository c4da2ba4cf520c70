"""Events: every figure that a person sees is also a line of events.jsonl."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from smolora_core.errors import ConfigError, DatasetError

_STEPS = ("log", "eval", "checkpoint")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 1 << 16


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
        """Open a log; a last line that a crash tore is cut off before an event is written.

        Args:
            path: events.jsonl of the run.
            listener: shows events to a person.
            mask: takes secrets out of what is written and shown.

        Raises:
            ConfigError: a link stands in its place.
        """
        if path.is_symlink():
            raise ConfigError("is a link, and would be written to", where=str(path), hint="remove it")
        self._path = path
        self._listener = listener
        self._mask = mask
        self._torn, self._refused = True, False

    def emit(self, kind: str, **values: Any) -> None:
        """Write an event and show it; numbers that JSON does not know are written as `"NaN"` and `"Infinity"`.

        What cannot be written is shown all the same, and that it is not written is said once.
        """
        values = self._mask(values)
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **_spelt(values)}, ensure_ascii=False, allow_nan=False)
        # Half a surrogate, as in the name of a file that is not UTF-8, becomes the escape that JSON has for it.
        try:
            self._append(f"{line}\n".encode(errors="backslashreplace"))
        except OSError as error:
            self._torn = True
            if not self._refused:
                self._refused = True
                text = f"{self._path} is not written to ({error.strerror or error}): events are only shown until it can be"
                self._listener(Event("warning", {"text": text}))
        self._listener(Event(kind, values))

    def _append(self, line: bytes) -> None:
        with os.fdopen(os.open(self._path, _FLAGS, 0o600), "r+b") as stream:
            if self._torn:
                _cut_torn_line(stream)
            stream.write(line)
        self._torn = False


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


def _cut_torn_line(stream: BinaryIO) -> None:
    """Cut off what stands behind the last line feed."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        stream.seek(begin)
        if (found := stream.read(end - begin).rfind(b"\n")) >= 0:
            end = begin + found + 1
            break
        end = begin
    stream.truncate(end)


def _spelt(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _spelt(inner) for key, inner in value.items()}
    return [_spelt(inner) for inner in value] if isinstance(value, list | tuple) else value


def logged(level: str) -> Callable[[Event], None]:
    """Make a listener that logs events as `smolora`: warnings as such, all others as info.

    Args:
        level: the least that is logged; of `debug.log_level`.
    """
    logger = logging.getLogger("smolora")
    logger.setLevel(level)

    def listen(event: Event) -> None:
        text = event.values.get("text") or " · ".join(f"{name} {value}" for name, value in event.values.items())
        logger.log(logging.WARNING if event.kind == "warning" else logging.INFO, "%s: %s", event.kind, text)

    return listen
