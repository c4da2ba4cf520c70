"""The last line of a terminal: what a run is doing, and its progress bar once it trains."""

import math
import os
import sys
import time
from collections import deque
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_BLOCKS = "▁▂▃▄▅▆▇█"
_TOPIC_WIDTH = 11
_MIN_BAR, _MAX_BAR = 8, 24
_FRAMES_PER_SECOND = 5
_RECENT_STEPS = 32


class LiveLine:
    """Redraws the last line several times a second; whatever else is printed appears above it.

    Attributes:
        doing: what the run is doing; once it trains, the next step clears it.
    """

    def __init__(self, console: Console) -> None:
        """Start to draw on a terminal."""
        self.doing = ""
        self._console, self._spinner, self._pace = console, Spinner("dots"), _Pace()
        self._loss, self._losses = math.nan, list[float]()
        # A redirected stderr stays redirected.
        stderr = sys.stderr is not None and sys.stderr.isatty()
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=_FRAMES_PER_SECOND, redirect_stderr=stderr
        )
        self._live.start(refresh=True)

    def show(self, doing: str) -> None:
        """Show at once what the run is doing."""
        self.doing = doing
        self._live.refresh()

    def advance(self, step: int, steps: int, tokens: int, loss: float) -> None:
        """Move the bar after a step.

        Args:
            step: the number of finished steps.
            steps: the number of steps in the run.
            tokens: the number of tokens trained so far.
            loss: the loss of the step.
        """
        self._pace.advance(step, steps, tokens)
        self._loss, self.doing = loss, ""

    def add_loss(self, loss: float) -> None:
        """Add a mean loss to the curve."""
        if math.isfinite(loss):
            self._losses.append(loss)

    def end_pause(self) -> None:
        """Leave the time since the last step out of the rate."""
        self.doing = ""
        self._pace.end_pause()

    def stop(self) -> None:
        """Leave the bar as it is; remove the line if there is no bar."""
        self._live.transient = not self._pace.steps
        self._live.stop()

    def _draw(self) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(width=_TOPIC_WIDTH - 3)
        if not self._pace.steps:
            line.add_row("", self._spinner, Text(self.doing, no_wrap=True, overflow="ellipsis"))
            return line
        text = Text(f"{self._pace}  {self.doing or self._measured()}", no_wrap=True, overflow="ellipsis")
        width = max(_MIN_BAR, min(_MAX_BAR, self._console.width - _TOPIC_WIDTH - text.cell_len - 2))
        line.add_row("", "train", ProgressBar(self._pace.steps, self._pace.step, width), text)
        return line

    def _measured(self) -> str:
        if not self._pace.rate:
            return ""
        start = f"from {self._losses[0]:.3f}" if self._losses else ""
        # What matters least is last, because a narrow terminal cuts it off.
        return f"{self._pace.rate}  loss {self._loss:.3f} {_sparkline(self._losses)} {start}"


class _Pace:
    """How far training is and how fast: `  12 %  20/160  00:31, 02:10 left`."""

    def __init__(self) -> None:
        self.step = self.steps = 0
        self.rate = ""
        self._first = self._tokens = 0
        self._started = self._counted = self._ends = 0.0
        # Seconds and tokens of each step.
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT_STEPS)

    def advance(self, step: int, steps: int, tokens: int) -> None:
        now = time.monotonic()
        if self.steps:
            self._recent.append((now - self._counted, tokens - self._tokens))
            spent, trained = map(sum, zip(*self._recent, strict=True))
            self.rate = f"{trained / max(spent, 1e-9):,.0f} tok/s"
            self._ends = now + (now - self._started) / max(1, step - self._first) * (steps - step)
        else:
            self._first, self._started = step, now
        self.step, self.steps, self._tokens, self._counted = step, steps, tokens, now

    def end_pause(self) -> None:
        self._counted = time.monotonic()

    def __str__(self) -> str:
        now = time.monotonic()
        left = f", {_clock(max(0.0, self._ends - now))} left" if self._ends and self.step < self.steps else ""
        return f"{100 * self.step / self.steps:3.0f} %  {self.step}/{self.steps}  {_clock(now - self._started)}{left}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")


def _sparkline(values: list[float], width: int = 8) -> str:
    """Draw values as at most `width` blocks, each the mean of a stretch."""
    size = max(1, -(-len(values) // width))
    means = [sum(values[at : at + size]) / len(values[at : at + size]) for at in range(0, len(values), size)]
    low, high = min(means, default=0), max(means, default=0)
    return "".join(_BLOCKS[round((value - low) / ((high - low) or 1) * (len(_BLOCKS) - 1))] for value in means)


def _use_plain_streams() -> None:
    """Print directly in a forked process: the console's lock may be held by a thread that the fork did not copy."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        setattr(sys, name, getattr(stream, "rich_proxied_file", stream))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_plain_streams)
