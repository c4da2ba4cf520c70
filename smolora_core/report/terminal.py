"""Print a run's events: rich output on a terminal, one plain line per event elsewhere."""

import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TextIO, cast

from rich.console import Console

from smolora_core.report.events import Event
from smolora_core.report.live import LiveLine
from smolora_core.report.stream import SafeStream

_LONGEST_SILENCE = 30.0
_SAMPLES, _LONGEST_SAMPLE = 3, 50


class Terminal:
    """A listener that prints events: below them, a terminal shows what the run is doing, and its progress.

    As a context manager it also loads and silences other libraries, and leaves the terminal in order after an error.
    """

    def __init__(self, *, quiet: bool = False, level: str = "INFO") -> None:
        """Choose how much to print.

        Args:
            quiet: print nothing.
            level: `DEBUG` prints every event and does not silence libraries, `WARNING` prints warnings only, `ERROR` nothing.
        """
        quiet = quiet or level == "ERROR"
        self._level = level
        # Under pythonw there is no stdout; rich then prints nowhere.
        stream = sys.stdout and cast("TextIO", SafeStream(sys.stdout))
        # Notebooks get plain lines, and so do files in spite of FORCE_COLOR.
        self._console = Console(
            file=stream,
            force_terminal=None if stream and stream.isatty() else False,
            force_jupyter=False,
            quiet=quiet,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )
        self._draws = self._console.is_interactive and not quiet and level != "WARNING"
        self._line: LiveLine | None = None
        self._status = ""
        self._printed = 0.0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._stop)
            self.status("loading libraries")
            if self._level != "DEBUG":
                undo.enter_context(silence_libraries())
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._undo.close()

    def __call__(self, event: Event) -> None:
        """Print an event of a known kind; at level `DEBUG`, of any kind."""
        if self._level == "WARNING" and event.kind != "warning":
            return
        if event.kind in ("finished", "failed", "interrupted"):
            self._stop()
        elif event.kind in ("eval", "checkpoint") and self._line:
            self._line.end_pause()
        show = getattr(self, f"_show_{event.kind}", None)
        if show is not None:
            show(**event.values)
        elif self._level == "DEBUG":
            self.line("event", " · ".join([event.kind, *(f"{name} {value}" for name, value in event.values.items())]))

    def line(self, topic: str, text: str) -> None:
        """Print one line."""
        if self._level == "WARNING" and topic != "warning":
            return
        self._printed = time.monotonic()
        self._console.print(f"  {topic:<9}{text}")

    def status(self, text: str) -> None:
        """Show what the run is doing until that changes; where nothing can be redrawn, print it as a line."""
        if self._draws:
            self._live_line().show(text)
        elif text != self._status:
            self._status = text
            self.line("status", text)

    def _live_line(self) -> LiveLine:
        self._line = self._line or LiveLine(self._console)
        return self._line

    def _show_status(self, *, text: str, **more: Any) -> None:
        self.status(text)

    def _show_preparing(self, *, split: str, rows: int, rows_per_second: int) -> None:
        self.status(f"reading {split}: {rows:,} rows so far, {rows_per_second:,} rows/s")

    def _show_data(self, *, shape: str, columns: Sequence[str], cached: bool, train: dict[str, Any], **more: Any) -> None:
        origin = f"{shape}: {', '.join(columns)}{' · prepared by an earlier run' * cached}"
        self._show_ledger("data", train, origin)
        for split, ledger in more.items():
            self._show_ledger("held out", ledger, origin, split.removeprefix("eval").lstrip("."))

    def _show_ledger(self, topic: str, ledger: dict[str, Any], origin: str, name: str = "") -> None:
        dropped = sum(entry["rows"] for entry in ledger["dropped"])
        share = 100 * ledger["supervised"] / max(1, ledger["tokens"])
        added = f", {ledger['added']} added" if ledger["added"] else ""
        cut = f" · {ledger['truncated']} truncated by {ledger['tokens_lost']} tokens" if ledger["truncated"] else ""
        split = f" in {ledger['sequences']} sequences" if ledger["sequences"] != ledger["kept"] else ""
        kept = f"{name}{': ' * bool(name)}{ledger['kept']} rows kept{split}, {dropped} dropped{added}{cut}"
        self.line(topic, f"{kept} · {share:.0f} % of tokens supervised · {origin}")
        for entry in ledger["dropped"]:
            longest = f"; longest: {entry['largest']}" if "largest" in entry else ""
            what = f"{entry['rows']} dropped by {entry['step']}: {entry['reason']}{longest}"
            self.line("", f"{what} ({', '.join(entry['samples'])})")

    def _show_labels(self, *, rows: int, tokens: int, supervised: int, ended_rows: int, **more: Any) -> None:
        share = f"{supervised:,} of {tokens:,} tokens supervised in the first {rows} sequences as batched"
        self.line("labels", f"{share} · {ended_rows} sequences end with a supervised end token")

    def _show_base(self, *, model: str, device: str, threads: int, dtype: str, reason: str) -> None:
        self.line("device", f"{device} · {threads} threads · {dtype} ({reason})")
        self.line("base", model)

    def _show_targets(self, *, patterns: list[str], modules: int, reason: str, trainable: int, total: int) -> None:
        self.line("targets", f"{' '.join(patterns)} in {modules} modules  {reason}")
        self.line("adapter", f"{trainable:,} of {total:,} parameters trainable, {100 * trainable / total:.1f} %")

    def _show_step(self, *, step: int, steps: int, loss: float, tokens: int, **more: Any) -> None:
        if self._draws:
            self._live_line().advance(step, steps, tokens, loss)

    def _show_log(self, *, step: int, steps: int, loss: float, tokens_per_second: float, **more: Any) -> None:
        if self._draws:
            self._live_line().add_loss(loss)
        else:
            self.line("train", f"{step}/{steps}  loss {loss:.4f}  {tokens_per_second:,.0f} tok/s")

    def _show_evaluating(self, *, done: int, total: int, **more: Any) -> None:
        if self._draws:
            self._live_line().doing = f"evaluating {done}/{total}"
        elif time.monotonic() - self._printed > _LONGEST_SILENCE:
            self.line("status", f"evaluating {done}/{total}")

    def _show_eval(self, *, step: int, loss: float, **metrics: float) -> None:
        measured = "".join(f" · {name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items())
        self.line("eval", f"loss {loss:.4f}{measured} on held-out rows at step {step}")

    def _show_samples(self, *, step: int, prompts: Sequence[str], answers: Sequence[str]) -> None:
        for prompt, answer in list(zip(prompts, answers, strict=True))[:_SAMPLES]:
            self.line("sample", f"{_shortened(prompt)} → {_shortened(answer)}")
        if (more := len(prompts) - _SAMPLES) > 0:
            self.line("", f"and {more} more in events.jsonl")

    def _show_resumed(self, *, step: int, checkpoint: str, **more: Any) -> None:
        self.line("resumed", f"at step {step} from {checkpoint}")

    def _show_best(self, *, text: str, **more: Any) -> None:
        self.line("best", text)

    def _show_note(self, *, text: str, **more: Any) -> None:
        self.line("note", text)

    def _show_warning(self, *, text: str, **more: Any) -> None:
        self.line("warning", text)

    def _show_memory(self, *, strategies: Sequence[str]) -> None:
        self.line("memory", " · ".join(strategies))

    def _show_profile(self, *, file: str, costs: Sequence[dict[str, Any]]) -> None:
        self.line("profile", file)
        for cost in costs:
            self.line("", f"{100 * cost['share']:4.1f} %  {cost['seconds']:.2f} s in {cost['calls']:,} calls  {cost['what']}")

    def _show_finished(self, *, steps: int, adapter: str, tensors_verified: int, **metrics: Any) -> None:
        self.line("saved", f"{adapter} · verified: {tensors_verified} tensors read back identical")

    def _stop(self) -> None:
        if self._line:
            self._line.stop()
        self._line = None


def silence_libraries() -> ExitStack:
    """Turn off the progress bars, warnings and telemetry of other libraries.

    Returns:
        Restores the settings when it is closed or a `with` block ends; telemetry stays off.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with ExitStack() as restore:
        restore.enter_context(warnings.catch_warnings())
        # In a notebook without widgets, tqdm warns on import.
        warnings.simplefilter("ignore")
        from transformers import logging

        for library in ("huggingface_hub", "datasets"):
            bars = import_module(f"{library}.utils.tqdm")
            restore.callback(bars.disable_progress_bars if bars.are_progress_bars_disabled() else bars.enable_progress_bars)
            bars.disable_progress_bars()
        # Restored before the hub's setting, which it also changes.
        if logging.is_progress_bar_enabled():
            restore.callback(logging.enable_progress_bar)
        restore.callback(logging.set_verbosity, logging.get_verbosity())
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        # Imported libraries put their own filters first.
        warnings.simplefilter("ignore")
        return restore.pop_all()


def _shortened(text: str) -> str:
    """Quote the beginning of a text, on one line and without control characters."""
    return repr(text if len(text) <= _LONGEST_SAMPLE else f"{text[: _LONGEST_SAMPLE - 1]}…")
