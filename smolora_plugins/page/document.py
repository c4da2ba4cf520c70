"""The page of a run: one HTML file without scripts or network access, rendered from the files in the run's folder."""

import importlib.metadata
import json
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jinja2
import yaml

from smolora_core import ConfigError, nearest
from smolora_core.checkpoints import replace_file
from smolora_core.report import Event, read_events, without_repeats
from smolora_plugins.page.chart import draw

_EVENTS = "events.jsonl"
_ENDS = ("finished", "failed", "interrupted")
_STAGES = ("data", "base", "log")
_PACKAGES = ("smolora", "torch", "transformers", "peft")
# A line of run.yaml; a section header has neither value nor source.
_SETTING = re.compile(r"( *)(\w+):(?: (.*)  # (.*))?")


def write_page(run: Path) -> Path:
    """Write `report.html` into a run's folder, however the run ended; only events.jsonl is required.

    Raises:
        ConfigError: the folder is not a run's folder.
        DatasetError: a line of events.jsonl is not an event.
    """
    try:
        events = without_repeats(read_events(run / _EVENTS))
    except OSError as error:
        hint = _nearby(run) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"no run in {str(run)!r} ({_EVENTS}: {error.strerror})", hint=hint) from error
    page = run / "report.html"
    # A lone surrogate, as in a file name that is not UTF-8, is shown as its escape, as in events.jsonl.
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
    settings, ledger = list(_settings(run / "run.yaml")), _ledger(run / "ledger.json")
    started, took = _span(run / _EVENTS)
    return environment.get_template("page.html.j2").render(
        folder=run.absolute().name,
        status=_status(events),
        started=started,
        took=took,
        last={event.kind: event.values for event in events},
        messages={kind: dict.fromkeys(e.values["text"] for e in events if e.kind == kind) for kind in ("warning", "note")},
        compared=list(_compared(events)),
        samples=_samples(events),
        chart=draw({"training": _losses(events, "log"), "held-out rows": _losses(events, "eval")}),
        ledger=ledger,
        splits=[(_split_title(key), each) for key, each in ledger.items()],
        settings=settings,
        named={key: yaml.safe_load(value) for key, value, _ in settings if key in ("model.path", "task")},
        environment={
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    )


def _status(events: Sequence[Event]) -> str:
    """Return how a run ended; `unfinished` if it was resumed since, or never ended."""
    latest = next((event.kind for event in reversed(events) if event.kind in (*_ENDS, *_STAGES)), "")
    return latest if latest in _ENDS else "unfinished"


def _span(path: Path) -> tuple[datetime | None, timedelta]:
    """Read the time of the first event, and the time from it to the last."""
    lines = path.read_bytes().split(b"\n")[:-1]
    if not lines:
        return None, timedelta()
    first, last = (json.loads(lines[place])["time"] for place in (0, -1))
    return datetime.fromtimestamp(first, UTC), timedelta(seconds=round(last - first))


def _compared(events: Sequence[Event]) -> Iterator[tuple[str, float | None, float]]:
    """Yield each metric's name, its value before the first step, if evaluated, and that of the adapter that is kept."""
    evaluated = [event.values for event in events if event.kind == "eval"]
    if evaluated:
        best = next((event.values["step"] for event in reversed(events) if event.kind == "best"), None)
        first, latest = evaluated[0], next((each for each in reversed(evaluated) if each["step"] == best), evaluated[-1])
        before = first if first["step"] == 0 and len(evaluated) > 1 else {}
        for metric, after in latest.items():
            if metric != "step":
                yield metric, before.get(metric), after


def _samples(events: Sequence[Event]) -> dict[str, dict[int, str]]:
    """Collect the answers to each sample prompt by step."""
    found: dict[str, dict[int, str]] = {}
    for each in (event.values for event in events if event.kind == "samples"):
        for prompt, answer in zip(each["prompts"], each["answers"], strict=True):
            found.setdefault(prompt, {})[each["step"]] = answer
    return found


def _losses(events: Sequence[Event], kind: str) -> dict[int, float]:
    return {event.values["step"]: float(event.values["loss"]) for event in events if event.kind == kind}


def _ledger(path: Path) -> dict[str, Any]:
    # Missing if the run never prepared rows, torn if it was killed while writing.
    with suppress(FileNotFoundError, ValueError):
        ledger = json.loads(path.read_bytes())
        if isinstance(ledger, dict):
            return ledger
    return {}


def _split_title(key: str) -> str:
    """Name a split of ledger.json for reading: `eval.easy` is `held-out easy`."""
    return "training" if key == "train" else key.replace("eval", "held-out", 1).replace(".", " ")


def _settings(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield key, value and source of each line of run.yaml, as `smolora_core.config.dump` writes it."""
    outer: list[str] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for match in filter(None, map(_SETTING.fullmatch, text.split("\n"))):
        indent, key, value, source = match.groups()
        outer[len(indent) // 2 :] = [key]
        if value is not None:
            yield ".".join(outer), value, source


def _figure(value: Any) -> Any:
    """Format a number for reading; return anything else unchanged."""
    if isinstance(value, int | float):
        return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
    return value


def _nearby(folder: Path) -> str:
    """Suggest the run that was probably meant: around or in the folder, or next to it under a similar name."""
    close = [path.parent for path in (*folder.parent.glob(_EVENTS), *sorted(folder.glob(f"*/{_EVENTS}")))]
    if close:
        return f"did you mean {str(close[0])!r}?"
    beside = (str(path.parent) for path in folder.parent.glob(f"*/{_EVENTS}"))
    return nearest(str(folder), beside) or "give the folder that 'smolora train' wrote"
