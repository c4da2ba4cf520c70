"""A terminal shows in its last line what the run is doing, and a bar once it trains; a file and a notebook get plain lines."""

import io
import math
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from rich.file_proxy import FileProxy

from smolora_core.report.events import Event
from smolora_core.report.terminal import Terminal

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TOKEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+")
_UP, _ERASE = "\x1b[1A", "\x1b[2K"


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """The lines that remain, as a person sees them."""
        rows, row = {0: ""}, 0
        for token in _TOKEN.findall(self.getvalue()):
            row += (token == "\n") - (token == _UP)
            if token in ("\r", _ERASE):
                rows[row] = ""
            elif token.isprintable():
                rows[row] = rows.get(row, "") + token
        return [line.rstrip() for _, line in sorted(rows.items()) if line.strip()]

    def frames(self) -> str:
        """Everything that was ever drawn."""
        return _CONTROL.sub("", self.getvalue())


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    for name, value in {"TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    return Screen()


@pytest.fixture
def on_screen(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    def make(**options: object) -> Terminal:
        monkeypatch.setattr(sys, "stdout", screen)
        return Terminal(**options)

    return make


def send(terminal: Terminal, kind: str, **values: object) -> None:
    terminal(Event(kind, values))


def train(terminal: Terminal, *, steps: int = 10, upto: int = 5, pause: Callable[[int], None] = lambda step: None) -> None:
    """Send the events of training: 100 tokens in about a hundredth of a second in each step."""
    send(terminal, "step", step=0, steps=steps, loss=math.nan, tokens=0)
    for step in range(1, upto + 1):
        time.sleep(0.01)
        send(terminal, "step", step=step, steps=steps, loss=4 / step, tokens=100 * step)
        send(terminal, "log", step=step, steps=steps, loss=4 / step, tokens_per_second=1.0)
        pause(step)


def bar(screen: Screen) -> str:
    """The bar as it was drawn last."""
    (line,) = [line for line in screen.lines() if line.startswith("  train")]
    return line


def test_a_status_is_shown_at_once(screen, on_screen):
    terminal = on_screen()
    terminal.status("loading libraries")
    assert "loading libraries" in screen.frames()
    send(terminal, "interrupted")


def test_a_status_takes_the_place_of_the_one_before_and_leaves_nothing_behind(screen, on_screen):
    with on_screen(level="DEBUG") as terminal:
        terminal.status("reading rows")
        terminal.line("data", "8 rows kept")
        terminal.status("loading the model")
    assert screen.lines() == ["  data     8 rows kept"]


def test_the_bar_begins_at_step_0(screen, on_screen):
    terminal = on_screen()
    train(terminal, upto=0)
    send(terminal, "interrupted")
    assert re.fullmatch(r"  train    [━ ]+   0 %  0/10  00:00", bar(screen))


def test_every_step_moves_the_bar(screen, on_screen):
    terminal = on_screen()
    train(terminal, steps=8, upto=2)
    send(terminal, "interrupted")
    assert re.fullmatch(
        r"  train    [━╸╺ ]+  25 %  2/8  00:00, 00:00 left  [\d,]+ tok/s  loss 2.000 █▁ from 4.000", bar(screen)
    )


def test_a_run_that_resumes_begins_where_it_stopped(screen, on_screen):
    terminal = on_screen()
    send(terminal, "step", step=6, steps=8, loss=math.nan, tokens=600)
    time.sleep(0.1)
    send(terminal, "step", step=7, steps=8, loss=1.0, tokens=700)
    send(terminal, "interrupted")
    rate = float(re.search(r"([\d,]+) tok/s", bar(screen))[1].replace(",", ""))
    assert " 88 %  7/8" in bar(screen)
    assert 100 < rate <= 1000


def test_time_left_counts_the_steps_that_remain(screen, on_screen):
    terminal = on_screen()
    send(terminal, "step", step=0, steps=601, loss=math.nan, tokens=0)
    time.sleep(0.1)
    send(terminal, "step", step=1, steps=601, loss=1.0, tokens=100)
    send(terminal, "interrupted")
    minutes, seconds = re.search(r"(\d\d):(\d\d) left", bar(screen)).groups()
    assert 59 <= 60 * int(minutes) + int(seconds) < 120


@pytest.mark.parametrize("end", [("eval", {"step": 2, "loss": 1.0}), ("checkpoint", {"step": 2, "path": "checkpoint-2"})])
def test_evaluating_and_saving_do_not_slow_the_rate(screen, on_screen, end):
    def pause(step: int) -> None:
        if step == 2:
            time.sleep(1)
            send(terminal, end[0], **end[1])

    terminal = on_screen()
    train(terminal, pause=pause)
    send(terminal, "interrupted")
    # With the pause, 500 tokens would take more than a second.
    assert float(re.search(r"([\d,]+) tok/s", bar(screen))[1].replace(",", "")) > 500


def test_an_evaluation_is_shown_in_the_same_line_until_it_ends(screen, on_screen):
    terminal = on_screen()
    train(terminal)
    send(terminal, "evaluating", done=3, total=12)
    time.sleep(0.5)
    send(terminal, "eval", step=5, loss=1.0)
    send(terminal, "interrupted")
    assert "5/10  00:00, 00:00 left  evaluating 3/12" in screen.frames()
    assert "evaluating" not in bar(screen)


def test_a_finished_bar_stays_and_lines_follow_it(screen, on_screen):
    terminal = on_screen()
    train(terminal, steps=3, upto=3)
    send(terminal, "finished", steps=3, adapter="out/adapter", tensors_verified=4)
    terminal.line("next", "smolora generate")
    assert re.match(r"  train    ━+ 100 %  3/3  00:00  [\d,]+ tok/s", bar(screen))
    assert screen.lines()[-2:] == [
        "  saved    out/adapter · verified: 4 tensors read back identical",
        "  next     smolora generate",
    ]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_every_frame_is_one_line(screen, on_screen, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = on_screen()
    terminal.status("reading " + "a/very/long/name" * 20)
    train(terminal, steps=100_000, upto=20)
    send(terminal, "interrupted")
    drawn = re.split(r"[\r\n]+", screen.frames())
    assert max(map(len, drawn)) <= columns
    assert screen.lines() == [bar(screen)]


def test_loss_that_is_not_a_number_is_shown_and_left_out_of_the_curve(screen, on_screen):
    terminal = on_screen()
    train(terminal, upto=2)
    send(terminal, "step", step=3, steps=10, loss=math.nan, tokens=300)
    send(terminal, "log", step=3, steps=10, loss=math.nan, tokens_per_second=1.0)
    send(terminal, "interrupted")
    assert bar(screen).endswith("loss nan █▁ from 4.000")


def test_what_others_print_is_a_line_above(screen, on_screen):
    terminal = on_screen()
    train(terminal)
    print("a plugin's line")
    send(terminal, "interrupted")
    assert "a plugin's line" in screen.lines()
    assert sys.stdout is screen


def test_an_error_leaves_the_terminal_in_order(screen, on_screen):
    terminal = on_screen(level="DEBUG")
    with suppress(KeyboardInterrupt), terminal:
        train(terminal)
        raise KeyboardInterrupt
    assert sys.stdout is screen
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_prints_without_the_lock_of_the_line(screen, on_screen):
    terminal = on_screen()
    terminal.status("reading rows")
    assert isinstance(sys.stdout, FileProxy)
    child = os.fork()
    if not child:
        os._exit(0 if sys.stdout is screen else 1)
    assert os.waitpid(child, 0)[1] == 0
    send(terminal, "interrupted")


@pytest.mark.parametrize("setting", [{}, {"FORCE_COLOR": "1"}])
def test_a_pipe_gets_plain_lines(capsys, monkeypatch, setting):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    for text in ("reading rows", "reading rows", "loading the model"):
        terminal.status(text)
    train(terminal, upto=2)
    send(terminal, "evaluating", done=1, total=2)
    assert capsys.readouterr().out.splitlines() == [
        "  status   reading rows",
        "  status   loading the model",
        "  train    1/10  loss 4.0000  1 tok/s",
        "  train    2/10  loss 2.0000  1 tok/s",
    ]


def test_a_terminal_that_cannot_redraw_gets_plain_lines(screen, on_screen, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    on_screen().status("reading rows")
    assert screen.getvalue() == "  status   reading rows\n"


@pytest.mark.parametrize("options", [{"quiet": True}, {"level": "WARNING"}, {"level": "ERROR"}])
def test_where_little_is_shown_no_progress_is(screen, on_screen, options):
    terminal = on_screen(**options)
    terminal.status("reading rows")
    train(terminal)
    assert screen.getvalue() == ""
