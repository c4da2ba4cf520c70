"""Events are JSON lines whatever is in them, and come back as they were."""

import json
import math

import pytest

from smolora_core.errors import ConfigError, DatasetError
from smolora_core.report.events import Event, EventLog, log_listener, read_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def log(path, shown=None):
    return EventLog(path, [].append if shown is None else shown.append)


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_events_come_back(path):
    log(path).emit("log", step=1, loss=0.5)
    log(path).emit("note", text="größer")
    assert read_events(path) == [Event("log", {"step": 1, "loss": 0.5}), Event("note", {"text": "größer"})]


def test_numbers_that_json_does_not_know_are_written_as_text(path):
    log(path).emit("log", loss=math.nan, more={"norms": [math.inf, -math.inf, 1.0]})
    (line,) = path.read_text(encoding="utf-8").splitlines()
    values = json.loads(line, parse_constant=refuse)
    assert (values["loss"], values["more"]) == ("NaN", {"norms": ["Infinity", "-Infinity", 1.0]})


def test_a_listener_is_given_the_numbers_themselves(path):
    shown = []
    log(path, shown).emit("log", loss=math.inf)
    assert shown == [Event("log", {"loss": math.inf})]


def test_half_a_surrogate_is_no_obstacle(path):
    log(path).emit("note", text="caf\udce9.jsonl")
    assert read_events(path) == [Event("note", {"text": "caf\udce9.jsonl"})]


@pytest.mark.parametrize("torn", [b'{"time": 1, "ev', "é".encode()[:1], b""])
def test_a_last_line_that_a_crash_tore_is_left_out(path, torn):
    log(path).emit("log", step=1)
    path.write_bytes(path.read_bytes() + torn)
    assert read_events(path) == [Event("log", {"step": 1})]


def test_a_run_goes_on_behind_a_torn_line(path):
    log(path).emit("log", step=1)
    path.write_bytes(path.read_bytes() + b'{"time": 1, "ev')
    log(path).emit("log", step=2)
    assert [event.values["step"] for event in read_events(path)] == [1, 2]


@pytest.mark.parametrize("line", ["not json", "[1]", '{"event": "log"}', '{"time": 1}', "3", ""])
def test_any_other_line_that_is_no_event_is_an_error(path, line):
    log(path).emit("log", step=1)
    path.write_text(f"{path.read_text()}{line}\n{path.read_text()}", encoding="utf-8")
    with pytest.raises(DatasetError) as error:
        read_events(path)
    assert str(error.value) == f"{path}:2 is not an event; remove the line"


def test_a_torn_line_of_any_length_is_cut_in_place(path):
    log(path).emit("log", step=1)
    whole, node = path.read_bytes(), path.stat().st_ino
    path.write_bytes(whole + b"x" * 200_000)
    log(path).emit("log", step=2)
    assert path.read_bytes().startswith(whole)
    assert len(read_events(path)) == 2
    assert path.stat().st_ino == node


@pytest.fixture
def limit():
    """Let no file grow beyond a size, as a full disk would: what still fits is written."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_cannot_be_written_is_shown_and_said_once(path, limit):
    shown = []
    events = log(path, shown)
    events.emit("log", step=1)
    limit(path.stat().st_size + 10)
    for step in (2, 3):
        events.emit("log", step=step)
    text = f"cannot write to {path} (File too large); events are shown but not recorded until it is writable"
    assert [(each.kind, each.values.get("step", each.values.get("text"))) for each in shown] == [
        ("log", 1),
        ("warning", text),
        ("log", 2),
        ("log", 3),
    ]


def test_once_there_is_room_it_is_written_behind_the_last_whole_line(path, limit):
    events = log(path)
    events.emit("log", step=1)
    limit(path.stat().st_size + 10)
    events.emit("log", step=2)
    assert not path.read_bytes().endswith(b"\n")
    limit(1 << 20)
    events.emit("log", step=3)
    assert [event.values["step"] for event in read_events(path)] == [1, 3]


def test_a_link_is_not_written_through(path):
    target = path.with_name("precious")
    target.write_text("mine")
    events = log(path)
    path.symlink_to(target)
    with pytest.raises(ConfigError) as error:
        log(path)
    assert str(error.value) == f"{path} is a symlink and will not be written through; remove it"
    events.emit("log", step=1)
    assert target.read_text() == "mine"


def test_progress_is_shown_and_not_recorded(path):
    shown = []
    for kind in ("status", "step", "evaluating", "log"):
        log(path, shown).emit(kind, value=1)
    assert [event.kind for event in shown] == ["status", "step", "evaluating", "log"]
    assert [event.kind for event in read_events(path)] == ["log"]


def test_progress_is_not_logged(caplog):
    listen = log_listener("INFO")
    with caplog.at_level("INFO", "smolora"):
        for kind in ("status", "step", "evaluating", "note"):
            listen(Event(kind, {"text": "reading rows"}))
    assert caplog.messages == ["note: reading rows"]
