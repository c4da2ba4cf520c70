"""Print a run's events: rich output on a terminal, one plain line per event elsewhere."""

import os
import sys
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from smolora_core.report.events import Event
from smolora_core.report.stream import SafeStream

if TYPE_CHECKING:
    from rich.status import Status

_BLOCKS = "▁▂▃▄▅▆▇█"
_SAMPLES, _LONGEST_SAMPLE = 3, 50


class Terminal:
    """A listener that prints events. As a context manager it also silences other libraries."""

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
        self._console = Console(file=stream, quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._status: Status | None = None
        self._losses: list[float] = []

    def __enter__(self) -> Self:
        if self._level != "DEBUG":
            silence_libraries()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        """Print an event of a known kind; at level `DEBUG`, of any kind."""
        show = getattr(self, f"_show_{event.kind}", None)
        if self._level == "WARNING" and event.kind != "warning":
            return
        if show is not None:
            show(**event.values)
        elif self._level == "DEBUG":
            self.line("event", " · ".join([event.kind, *(f"{name} {value}" for name, value in event.values.items())]))

    def line(self, topic: str, text: str) -> None:
        """Print one line."""
        if self._level == "WARNING" and topic != "warning":
            return
        self._console.print(f"  {topic:<9}{text}")

    def _show_preparing(self, *, split: str, rows: int, rows_per_second: int) -> None:
        text = f"{split}: {rows:,} rows so far, {rows_per_second:,} rows/s"
        if not self._console.is_terminal:
            self.line("reading", text)
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _show_data(self, *, shape: str, columns: Sequence[str], cached: bool, train: dict[str, Any], **more: Any) -> None:
        self._stop()
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

    def _show_log(self, *, step: int, steps: int, loss: float, tokens_per_second: float, **more: Any) -> None:
        self._losses.append(loss)
        rate = f"{tokens_per_second:,.0f} tok/s"
        if not self._console.is_terminal:
            self.line("train", f"{step}/{steps}  loss {loss:.4f}  {rate}")
            return
        if self._progress is None:
            bar = (TextColumn("  train   "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(*bar, TextColumn("{task.fields[note]}"), console=self._console)
            self._progress.add_task("train", total=steps, note="")
            self._progress.start()
        note = f"loss {_sparkline(self._losses)}  {self._losses[0]:.2f} → {loss:.2f}   {rate}"
        self._progress.update(self._progress.task_ids[0], completed=step, note=note)

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

    def _show_note(self, *, text: str, **more: Any) -> None:
        self.line("note", text)

    def _show_warning(self, *, text: str, **more: Any) -> None:
        self.line("warning", text)

    def _show_memory(self, *, strategies: Sequence[str]) -> None:
        self.line("memory", " · ".join(strategies))

    def _show_profile(self, *, file: str, costs: Sequence[dict[str, Any]]) -> None:
        self._stop()
        self.line("profile", file)
        for cost in costs:
            self.line("", f"{100 * cost['share']:4.1f} %  {cost['seconds']:.2f} s in {cost['calls']:,} calls  {cost['what']}")

    def _show_finished(self, *, steps: int, adapter: str, tensors_verified: int, **metrics: Any) -> None:
        self._stop()
        self.line("saved", f"{adapter} · verified: {tensors_verified} tensors read back identical")

    def _stop(self) -> None:
        for live in (self._progress, self._status):
            if live is not None:
                live.stop()
        self._progress = self._status = None


def silence_libraries() -> None:
    """Turn off the progress bars, warnings and telemetry of other libraries."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import transformers
    from datasets.utils.tqdm import disable_progress_bars

    warnings.simplefilter("ignore")
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    disable_progress_bars()


def _shortened(text: str) -> str:
    """Quote the beginning of a text, on one line and without control characters."""
    return repr(text if len(text) <= _LONGEST_SAMPLE else f"{text[: _LONGEST_SAMPLE - 1]}…")


def _sparkline(values: list[float], width: int = 8) -> str:
    """Draw values as at most `width` blocks, each the mean of a stretch."""
    size = max(1, -(-len(values) // width))
    means = [sum(values[at : at + size]) / len(values[at : at + size]) for at in range(0, len(values), size)]
    low, high = min(means, default=0), max(means, default=0)
    return "".join(_BLOCKS[round((value - low) / ((high - low) or 1) * (len(_BLOCKS) - 1))] for value in means)
