"""A person sees what plugins say, and a terminal that goes away takes nothing with it."""

import io
import sys

import pytest

from smolora_core.report.events import Event
from smolora_core.report.terminal import Terminal

LOG = Event("log", {"step": 1, "steps": 2, "loss": 0.5, "tokens_per_second": 10.0})


def test_notes_and_warnings_are_lines(capsys):
    terminal = Terminal()
    terminal(Event("note", {"text": "[bold] :smile: as it is"}))
    terminal(Event("warning", {"text": "the loss is 0"}))
    assert capsys.readouterr().out.splitlines() == ["  note     [bold] :smile: as it is", "  warning  the loss is 0"]


def test_an_event_that_nobody_shows_is_no_error(capsys):
    Terminal()(Event("of_a_plugin", {"value": 1}))
    assert capsys.readouterr().out == ""


class Broken(io.StringIO):
    """A stream that fails at the first write or flush of it."""

    def __init__(self, error):
        super().__init__()
        self.error, self.tried = error, 0

    def write(self, text):
        self.tried += 1
        raise self.error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")])
def test_a_stream_that_is_lost_is_given_up(monkeypatch, error):
    stream = Broken(error)
    monkeypatch.setattr(sys, "stdout", stream)
    terminal = Terminal()
    terminal(LOG)
    terminal(LOG)
    assert stream.tried == 1


def test_a_stream_that_is_closed_is_given_up(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    terminal = Terminal()
    stream.close()
    terminal(LOG)


def test_no_stream_at_all_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    Terminal()(LOG)


def test_characters_that_an_encoding_lacks_are_replaced(monkeypatch):
    held = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(held, encoding="ascii", write_through=True))
    Terminal().line("answers", "1 → 2 · größer")
    assert held.getvalue() == b"  answers  1 ? 2 ? gr??er\n"
