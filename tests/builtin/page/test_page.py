"""The page of a run shows what is in its folder, whatever became of the run and whatever its files are called."""

import importlib.metadata
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest

from smolora_core.config import RunConfig, Setting, resolve
from smolora_core.config.document import Document
from smolora_core.config.dump import dump
from smolora_core.data.ledger import Ledger
from smolora_core.errors import DatasetError
from smolora_core.report.events import EventLog
from smolora_plugins.page.document import write_page

Emit = Callable[..., None]
SVG = "{http://www.w3.org/2000/svg}"
SCRIPT = "<script>alert('1')</script>"
VOID = {"meta"}


class Page(HTMLParser):
    """A page as a person and a browser see it: text without style, rows of tables, tags that all close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(self.html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._words).split())

    @property
    def svg(self) -> ElementTree.Element:
        (svg,) = re.findall("<svg.*?</svg>", self.html, re.DOTALL)
        return ElementTree.fromstring(svg)

    @property
    def hovers(self) -> list[str]:
        return [title.text or "" for title in self.svg.iter(f"{SVG}title")]

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self._words.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    values = {"model": "./tiny", "data": {"train": "rows.jsonl"}, "task": "causal-lm"}
    resolved = resolve(Document(values, {"": "my.yaml"}), [Setting(("lora", "r"), 4, "--lora.r")])
    (folder / "run.yaml").write_text(dump(resolved), encoding="utf-8")
    return folder


@pytest.fixture
def emit(run: Path) -> Emit:
    return EventLog(run / "events.jsonl", lambda event: None).emit


def base(emit: Emit, **values) -> None:
    emit("base", **{"model": "./tiny", "device": "cpu", "threads": 2, "dtype": "bfloat16", "reason": "measured", **values})


def log(emit: Emit, *losses: float, every: int = 1) -> None:
    for count, loss in enumerate(losses, start=1):
        emit("log", step=count * every, steps=len(losses) * every, loss=loss, tokens_per_second=48123.4)


def finish(emit: Emit, steps: int = 3) -> None:
    emit("finished", steps=steps, adapter="out/adapter", tensors_verified=16, train_loss=1.5)


def page(run: Path) -> Page:
    return Page(write_page(run))


def test_the_headline_says_what_was_run_and_what_came_of_it(run, emit):
    base(emit)
    log(emit, 3.0, 2.0, 1.25)
    finish(emit)
    found = page(run)
    assert found.text.startswith("out: ./tiny, finished SmoLoRA · out ./tiny · causal-lm Finished after 3 steps · 20")
    assert "training loss 1.25 at step 3, 48,123 tokens/s" in found.text


def test_a_run_that_failed_says_why(run, emit):
    log(emit, 3.0, 2.0)
    emit("failed", text="TrainingError: the loss is not a number")
    assert "Failed after step 2 of 2" in page(run).text
    assert "TrainingError: the loss is not a number" in page(run).text


def test_a_run_that_failed_at_once_says_so(run, emit):
    emit("failed", text="ModelLoadError: damaged")
    assert "Failed before the first step" in page(run).text


def test_a_run_that_was_interrupted_says_so(run, emit):
    log(emit, 3.0)
    emit("interrupted", text="KeyboardInterrupt")
    assert "Interrupted after step 1 of 1" in page(run).text


def test_a_run_whose_end_is_not_written_is_not_finished(run, emit):
    log(emit, 3.0)
    text = "No event records how this run ended: it is still running, or it was killed after step 1 of 1."
    assert text in page(run).text


def test_a_run_that_goes_on_behind_its_end_is_not_finished(run, emit):
    emit("failed", text="no memory left")
    base(emit)
    assert "Not finished" in page(run).text


def test_held_out_rows_are_compared_before_and_after(run, emit):
    emit("eval", step=0, loss=5.5)
    log(emit, 3.0, 2.0)
    emit("eval", step=2, loss=4.25)
    finish(emit, steps=2)
    assert "loss on held-out rows 5.5 → 4.25 before training → after training" in page(run).text


def test_a_run_that_goes_on_is_compared_so_far(run, emit):
    emit("eval", step=0, loss=5.5)
    log(emit, 3.0)
    emit("eval", step=1, loss="NaN")
    assert "5.5 → NaN before training → at step 1" in page(run).text


def test_answers_to_prompts_are_a_table_of_prompts_and_steps(run, emit):
    emit("samples", step=0, prompts=["a cat", "who"], answers=[" sat", ""])
    emit("samples", step=1500, prompts=["a cat", "why"], answers=[SCRIPT, " not"])
    assert page(run).rows[:4] == [
        ["prompt", "step 0", "step 1,500"],
        ["a cat", " sat", SCRIPT],
        ["who", "", ""],
        ["why", "", " not"],
    ]


def test_answers_of_steps_that_a_resumed_run_repeats_are_shown_once(run, emit):
    for answer in ("lost", "kept"):
        emit("samples", step=3, prompts=["a cat"], answers=[answer])
        emit("resumed", step=2, checkpoint="checkpoint-2")
    emit("samples", step=3, prompts=["a cat"], answers=["kept"])
    assert page(run).rows[:2] == [["prompt", "step 3"], ["a cat", "kept"]]


def test_a_run_without_evaluation_says_so(run, emit):
    log(emit, 3.0)
    assert "No evaluation was run." in page(run).text


def test_every_loss_is_found_by_hovering(run, emit):
    emit("eval", step=0, loss=3.5)
    log(emit, 3.0, 1234.5, every=1000)
    found = page(run).hovers
    assert found == ["training, step 1,000: 3", "training, step 2,000: 1234", "held-out rows, step 0: 3.5"]


def test_a_later_value_of_a_step_is_the_one_drawn(run, emit):
    log(emit, 3.0, 2.0)
    log(emit, 1.0)
    assert page(run).hovers == ["training, step 1: 1", "training, step 2: 2"]


def test_the_axes_are_named_and_enclose_the_values(run, emit):
    log(emit, 1.9, 0.3)
    texts = [text.text for text in page(run).svg.iter(f"{SVG}text")]
    assert texts == ["0", "0.5", "1", "1.5", "2", "1", "2", "loss", "step"]


def test_a_loss_that_is_no_number_is_a_gap(run, emit):
    log(emit, 3.0, math.nan, 2.0, 1.0, math.inf)
    svg = page(run).svg
    (line,) = (path.get("d") for path in svg.iter(f"{SVG}path") if path.get("class") == "line")
    assert [stretch.count("L") for stretch in line.split("M")[1:]] == [1, 2]
    assert page(run).hovers[:2] == ["training, step 2: nan", "training, step 5: inf"]


@pytest.mark.parametrize("losses", [[0.5], [0.0], [2.0, 2.0], [1.0, 1.0 + 1e-15], [1e-300, 3e38], [-1.0, 5e-324]])
def test_any_finite_losses_make_a_curve_inside_the_frame(run, emit, losses):
    log(emit, *losses)
    svg = page(run).svg
    *_, width, height = map(float, svg.attrib["viewBox"].split())
    for point in svg.iter(f"{SVG}circle"):
        assert 0 < float(point.attrib["cx"]) < width
        assert 0 < float(point.attrib["cy"]) < height


@pytest.mark.parametrize("losses", [[], [math.nan]])
def test_without_a_finite_loss_there_is_no_curve(run, emit, losses):
    emit("note", text="begun")
    log(emit, *losses)
    found = page(run)
    assert "svg" not in found.tags
    assert "No finite loss was logged." in found.text


def test_a_long_curve_keeps_its_extremes_and_gaps(run, emit):
    losses = [2.0 + math.sin(step) / 10 for step in range(5000)]
    losses[1234], losses[2345], losses[3456] = 9.0, 0.25, math.nan
    log(emit, *losses)
    found = page(run).hovers
    assert {"training, step 1,235: 9", "training, step 2,346: 0.25", "training, step 3,457: nan"} <= set(found)
    assert len(found) < 600


def test_what_was_trained_is_said(run, emit):
    base(emit)
    emit("targets", patterns=["q_proj", "v_proj"], modules=60, reason="[llama]", trainable=9216, total=1350000)
    finish(emit)
    assert (
        "base model ./tiny targets q_proj v_proj modules 60 [llama] parameters 9,216 of 1,350,000 trainable "
        "dtype bfloat16, measured device cpu, 2 threads adapter out/adapter verified 16 tensors read back identical"
    ) in page(run).text
    assert "trainable parameters 9,216 of 1,350,000, 0.68 %" in page(run).text


def account(**counts: int) -> Ledger:
    ledger = Ledger(**{"tokens": 1, **counts})
    ledger.passed("dedup", 1200, 1100)
    for number in range(4):
        ledger.drop("read", "is not JSON", f"rows.jsonl:{number}")
    ledger.drop("filter-length", "too long", "rows.jsonl:9", size=4321)
    return ledger


def write_ledger(run: Path, **sides: Ledger) -> None:
    (run / "ledger.json").write_text(json.dumps({side: ledger.as_dict() for side, ledger in sides.items()}))


def test_every_count_of_the_ledger_is_in_the_table(run, emit):
    counts = [field.name for field in attrs.fields(Ledger) if not field.name.startswith("_")]
    sides = {
        side: account(**{count: start + number for number, count in enumerate(counts)})
        for side, start in (("train", 10001), ("eval", 20001))
    }
    emit("note", text="begun")
    write_ledger(run, **sides)
    rows = page(run).rows
    assert ["", "training", "held-out"] in rows
    for number in range(len(counts)):
        assert [f"{10001 + number:,}", f"{20001 + number:,}"] in [row[1:] for row in rows]


def test_shares_and_sums_are_worked_out(run, emit):
    emit("data", shape="chat", columns=["messages"], cached=True)
    write_ledger(run, train=account(read=1200, kept=1195, tokens=200, supervised=30))
    found = page(run)
    assert ["share of tokens supervised", "15 %"] in found.rows
    assert ["rows dropped", "5"] in found.rows
    assert "training rows 1,195 5 dropped of 1,200 read" in found.text
    assert "Format: chat, from the columns messages; prepared by an earlier run." in found.text


def test_steps_and_reasons_are_listed(run, emit):
    emit("labels", rows=1024, tokens=3000, supervised=2000, ended_rows=1000)
    write_ledger(run, train=account())
    found = page(run)
    assert ["dedup", "1,200", "1,100"] in found.rows
    assert ["4", "read", "is not JSON", "rows.jsonl:0, rows.jsonl:1, rows.jsonl:2"] in found.rows
    assert ["1", "filter-length", "too long; longest: 4,321", "rows.jsonl:9"] in found.rows
    labels = (
        "2,000 of 3,000 tokens are supervised in the first 1,024 sequences as batched; "
        "1,000 of these end with a supervised end token."
    )
    assert labels in found.text


@pytest.mark.parametrize("held", [None, "", '{"train": {"read', "[]", "\xff"])
def test_a_ledger_that_is_missing_or_torn_is_said(run, emit, held):
    emit("note", text="begun")
    if held is not None:
        (run / "ledger.json").write_bytes(held.encode("latin-1"))
    assert "The row counts (ledger.json) are missing or incomplete." in page(run).text


def test_warnings_come_before_notes_and_each_once(run, emit):
    for kind, text in (("note", "it is late"), ("warning", "the loss is 0"), ("warning", "the loss is 0")):
        emit(kind, text=text)
    assert "Warnings and notes Warning: the loss is 0 it is late Loss" in page(run).text


def test_every_key_of_the_config_has_its_value_and_source(run, emit):
    emit("note", text="begun")
    rows = page(run).rows
    assert ["lora.r", "4", "--lora.r"] in rows
    assert ["data.train", '"rows.jsonl"', "my.yaml"] in rows
    assert ["seed", "42", "default"] in rows
    keys = {
        f"{outer.name}.{inner.name}" if attrs.has(outer.type) else outer.name
        for outer in attrs.fields(attrs.resolve_types(RunConfig))
        for inner in (attrs.fields(outer.type) if attrs.has(outer.type) else [outer])
    }
    shown = {row[0] for row in rows}
    assert {key for key in keys if key.partition(".")[0] not in ("loss", "task")} <= shown


def test_a_run_without_its_config_has_a_page(run, emit):
    (run / "run.yaml").unlink()
    base(emit)
    found = page(run)
    assert "SmoLoRA · out ./tiny Not finished" in found.text
    assert "Config" not in found.text


def test_the_environment_is_told(run, emit):
    emit("note", text="begun")
    for package in ("smolora", "torch", "transformers", "peft"):
        assert f"{package} {importlib.metadata.version(package)}" in page(run).text


def test_nothing_in_a_file_becomes_markup(run, emit):
    (run / "run.yaml").write_text(f'model:\n  path: "{SCRIPT}"  # {SCRIPT}\ntask: "{SCRIPT}"  # {SCRIPT}\n')
    emit("warning", text=SCRIPT)
    emit("note", text=SCRIPT)
    emit("data", shape=SCRIPT, columns=[SCRIPT], cached=False)
    base(emit, **dict.fromkeys(("model", "device", "dtype", "reason"), SCRIPT))
    emit("targets", patterns=[SCRIPT], modules=1, reason=SCRIPT, trainable=1, total=2)
    emit("eval", step=0, loss=1.0, **{SCRIPT: SCRIPT})
    emit("finished", steps=1, adapter=SCRIPT, tensors_verified=1)
    emit("failed", text=SCRIPT)
    ledger = Ledger(read=1)
    ledger.passed(SCRIPT, 1, 0)
    ledger.drop(SCRIPT, SCRIPT, f"{SCRIPT}.jsonl:1")
    write_ledger(run, train=ledger)
    found = page(run)
    assert "script" not in found.tags
    assert found.html.count("&lt;script&gt;") == found.text.count(SCRIPT) > 15


def test_a_page_needs_nothing_but_itself(run, emit):
    log(emit, 3.0)
    finish(emit)
    found = page(run)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert not {"src", "href", "style"} & {name for name, _ in found.attributes}
    assert "url(" not in found.html
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes


@pytest.mark.parametrize("held", ["", '{"time": 1, "ev'])
def test_a_run_that_wrote_no_whole_event_has_a_page(run, held):
    (run / "events.jsonl").write_text(held)
    assert "./tiny · causal-lm Not finished No event records" in page(run).text


def test_a_last_line_that_a_crash_tore_is_left_out(run, emit):
    log(emit, 3.0)
    with (run / "events.jsonl").open("a") as stream:
        stream.write('{"time": 1, "event": "finished", "st')
    assert "Not finished" in page(run).text


def test_any_other_line_that_is_no_event_is_an_error(run):
    (run / "events.jsonl").write_text("not json\n")
    with pytest.raises(DatasetError) as error:
        write_page(run)
    assert str(error.value) == f"{run / 'events.jsonl'}:1 is not an event; remove the line"


def test_half_a_surrogate_is_no_obstacle(run, emit):
    emit("note", text="caf\udce9.jsonl")
    assert "caf\\udce9.jsonl" in page(run).text


def test_a_page_is_written_anew(run, emit):
    log(emit, 3.0)
    assert "Not finished" in page(run).text
    finish(emit)
    assert "Finished after 3 steps" in page(run).text


def test_a_page_that_cannot_be_written_leaves_nothing(run, emit):
    emit("note", text="begun")
    (run / "report.html" / "of-somebody-else").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_page(run)
    assert sorted(path.name for path in run.iterdir()) == ["events.jsonl", "report.html", "run.yaml"]
