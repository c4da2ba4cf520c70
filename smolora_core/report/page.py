"""The page of a run: one HTML file without scripts or network, made of what the run left in its folder."""

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import jinja2
import yaml

from smolora_core.checkpoints.disk import replace_file
from smolora_core.errors import ConfigError, nearest
from smolora_core.report.chart import draw
from smolora_core.report.events import Event, read_events, without_repeats

_EVENTS = "events.jsonl"
_ENDS = ("finished", "failed", "interrupted")
_STAGES = ("data", "base", "log")
_PACKAGES = ("smolora", "torch", "transformers", "peft")
# A line of run.yaml; one that opens a section has neither value nor source.
_SETTING = re.compile(r"( *)(\w+):(?: (.*)  # (.*))?")


@attrs.frozen
class _Setting:
    key: str
    value: str
    source: str


@attrs.frozen
class _Compared:
    metric: str
    before: float | None
    after: float
    step: int


def write_page(run: Path) -> Path:
    """Write `report.html` into a run's folder, whatever became of the run.

    Args:
        run: a folder; of what a run leaves in it, only events.jsonl has to be there.

    Raises:
        ConfigError: it is not the folder of a run.
        DatasetError: a line of events.jsonl is no event.
    """
    try:
        events = without_repeats(read_events(run / _EVENTS))
    except OSError as error:
        hint = _nearby(run) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"no run in {str(run)!r} ({_EVENTS}: {error.strerror})", hint=hint) from error
    page = run / "report.html"
    # Half a surrogate, as in the name of a file that is not UTF-8, is shown as the escape it has in events.jsonl.
    replace_file(page, _render(run, events).encode("utf-8", errors="backslashreplace"))
    return page


def _render(run: Path, events: Sequence[Event]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    settings = list(_settings(run / "run.yaml"))
    started, took = _span(run / _EVENTS)
    return environment.get_template("page.html.j2").render(
        folder=run.absolute().name,
        status=_status(events),
        started=started,
        took=took,
        last={event.kind: event.values for event in events},
        messages={kind: dict.fromkeys(e.values["text"] for e in events if e.kind == kind) for kind in ("warning", "note")},
        compared=list(_compared(events)),
        chart=draw({"training": _losses(events, "log"), "held-out rows": _losses(events, "eval")}),
        ledger=_ledger(run / "ledger.json"),
        settings=settings,
        named={each.key: yaml.safe_load(each.value) for each in settings if each.key in ("model.path", "task")},
        environment={
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    )


def _status(events: Sequence[Event]) -> str:
    """Say how a run ended: the latest of `_ENDS`, unless the run went on behind it."""
    latest = next((event.kind for event in reversed(events) if event.kind in (*_ENDS, *_STAGES)), "")
    return latest if latest in _ENDS else "unfinished"


def _span(path: Path) -> tuple[datetime | None, timedelta]:
    """Read when the first event was, and how much later the last."""
    lines = path.read_bytes().split(b"\n")[:-1]
    if not lines:
        return None, timedelta()
    first, last = (json.loads(lines[place])["time"] for place in (0, -1))
    return datetime.fromtimestamp(first, UTC), timedelta(seconds=round(last - first))


def _compared(events: Sequence[Event]) -> Iterator[_Compared]:
    """Set the latest evaluation beside the one before the first step."""
    evaluated = [event.values for event in events if event.kind == "eval"]
    if evaluated:
        first, latest = evaluated[0], evaluated[-1]
        before = first if first["step"] == 0 and len(evaluated) > 1 else {}
        for metric in filter("step".__ne__, latest):
            yield _Compared(metric, before.get(metric), latest[metric], latest["step"])


def _losses(events: Sequence[Event], kind: str) -> dict[int, float]:
    return {event.values["step"]: float(event.values["loss"]) for event in events if event.kind == kind}


def _ledger(path: Path) -> dict[str, Any]:
    # A run that was ended while it wrote leaves half of it, and one that got no further than its model leaves none.
    with suppress(FileNotFoundError, ValueError):
        ledger = json.loads(path.read_bytes())
        if isinstance(ledger, dict):
            return ledger
    return {}


def _settings(path: Path) -> Iterator[_Setting]:
    """Read run.yaml back as `smolora_core.config.dump` writes it: every value in one line, with its source."""
    outer: list[str] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for match in filter(None, map(_SETTING.fullmatch, text.split("\n"))):
        indent, key, value, source = match.groups()
        outer[len(indent) // 2 :] = [key]
        if value is not None:
            yield _Setting(".".join(outer), value, source)


def _figure(value: Any) -> Any:
    """Spell a number for reading; what is none stays as it is."""
    if isinstance(value, int | float):
        return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
    return value


def _nearby(folder: Path) -> str:
    """Point to a run that was probably meant: around or in a folder, or beside it under a similar name."""
    close = [path.parent for path in (*folder.parent.glob(_EVENTS), *sorted(folder.glob(f"*/{_EVENTS}")))]
    if close:
        return f"did you mean {str(close[0])!r}?"
    beside = (str(path.parent) for path in folder.parent.glob(f"*/{_EVENTS}"))
    return nearest(str(folder), beside) or "give the folder that 'smolora train' wrote"
