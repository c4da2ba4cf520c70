"""Events are JSON lines whatever is in them, and come back as they were."""

import json
import math

import pytest

from smolora_core.errors import DatasetError
from smolora_core.report.events import Event, EventLog, read_events


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
    assert str(error.value) == f"{path}:2 is no event; remove the line"
