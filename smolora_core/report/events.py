"""The event log: everything a run shows is also a line of events.jsonl."""

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

_TRANSIENT = ("status", "step", "evaluating")
_STEPS = ("log", "eval", "samples", "checkpoint")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_BLOCK = 1 << 16


@attrs.frozen
class Event:
    """Something that happened in a run.

    Attributes:
        kind: the kind of event: `data`, `targets`, `log`, `eval`, `samples`, `checkpoint`, `best`, `warning`, `note`, ...;
            `status`, `step` and `evaluating` only show progress and are not recorded.
        values: the event's plain values.
    """

    kind: str
    values: dict[str, Any]


class EventLog:
    """Appends events to a file and forwards them to a listener."""

    def __init__(
        self, path: Path, listener: Callable[[Event], None], mask: Callable[[Any], Any] = lambda values: values
    ) -> None:
        """Open a log; a line torn by a crash is cut off before the first write. `mask` removes secrets from values.

        Raises:
            ConfigError: the path is a symlink.
        """
        if path.is_symlink():
            raise ConfigError("is a symlink and will not be written through", where=str(path), hint="remove it")
        self._path = path
        self._listener = listener
        self._mask = mask
        self._torn, self._failed = True, False

    def emit(self, kind: str, **values: Any) -> None:
        """Write an event, unless it only shows progress, and show it.

        Non-finite numbers are written as `"NaN"`, `"Infinity"` and `"-Infinity"`. If an event cannot be written, it is still
        shown, and the first failure is shown as a warning.
        """
        values = self._mask(values)
        if kind not in _TRANSIENT:
            self._write(kind, values)
        self._listener(Event(kind, values))

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **_plain(values)}, ensure_ascii=False, allow_nan=False)
        # A lone surrogate, as in a file name that is not UTF-8, is written as its JSON escape.
        try:
            self._append(f"{line}\n".encode(errors="backslashreplace"))
        except OSError as error:
            self._torn = True
            if not self._failed:
                self._failed = True
                reason = error.strerror or error
                text = f"cannot write to {self._path} ({reason}); events are shown but not recorded until it is writable"
                self._listener(Event("warning", {"text": text}))

    def _append(self, line: bytes) -> None:
        with os.fdopen(os.open(self._path, _FLAGS, 0o600), "r+b") as stream:
            if self._torn:
                _cut_torn_line(stream)
            stream.write(line)
        self._torn = False


def read_events(path: Path) -> list[Event]:
    """Read events back, without a last line torn by a crash.

    Raises:
        DatasetError: any other line is not an event.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            del values["time"]
            events.append(Event(values.pop("event"), values))
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError("is not an event", where=f"{path}:{number}", hint="remove the line") from error
    return events


def without_repeats(events: Sequence[Event]) -> list[Event]:
    """Drop the steps that a run lost in a crash and repeated after resuming from a checkpoint."""
    kept: list[Event] = []
    for event in events:
        if event.kind == "resumed":
            step = event.values["step"]
            kept = [each for each in kept if each.kind not in _STEPS or each.values["step"] <= step]
        kept.append(event)
    return kept


def _cut_torn_line(stream: BinaryIO) -> None:
    """Truncate a file after its last line feed."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        stream.seek(begin)
        if (found := stream.read(end - begin).rfind(b"\n")) >= 0:
            end = begin + found + 1
            break
        end = begin
    stream.truncate(end)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def log_listener(level: str) -> Callable[[Event], None]:
    """Make a listener that logs recorded events to the `smolora` logger: warnings as warnings, all others as info."""
    logger = logging.getLogger("smolora")
    logger.setLevel(level)

    def listen(event: Event) -> None:
        if event.kind in _TRANSIENT:
            return
        text = event.values.get("text") or " · ".join(f"{name} {value}" for name, value in event.values.items())
        logger.log(logging.WARNING if event.kind == "warning" else logging.INFO, "%s: %s", event.kind, text)

    return listen
