"""Several held-out sets with names: each is prepared, counted and compared apart."""

import json
from pathlib import Path

import pytest

import smolora_core
from smolora_core import ConfigError, DatasetError
from smolora_core.cli import main
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.plugins import PluginManager
from smolora_core.report import Terminal
from smolora_core.run.check import check_run
from smolora_core.run.context import open_run
from smolora_core.run.job import resolve_job
from smolora_core.run.prepare import prepare_rows
from tests.support.injector import Injected, fail_at
from tests.support.models import save_encoder
from tests.support.runs import config_of, events, rows_in


def write(file: Path, *rows: dict) -> str:
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(file)


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, str]:
    """The second set has a row of the training data."""
    hard = write(tmp_path / "hard.jsonl", {"text": "why the cat sat"}, {"text": "who liked it, and why"})
    return {"hard": hard, "easy": write(tmp_path / "easy.jsonl", {"text": "the film was good, said 0 of us"})}


@pytest.mark.parametrize(
    ("given", "names"), [(None, []), (0.2, [""]), ("hard", [""]), (("hard", "easy"), ["hard", "easy"]), (("easy",), ["easy"])]
)
def test_a_dataset_has_its_held_out_sets_by_name_in_their_order(llama, rows, sets, tmp_path, given, names):
    named = {name: sets[name] for name in given} if isinstance(given, tuple) else sets.get(given, given)
    config = config_of(llama, rows, tmp_path / "run", data={"eval": named})
    job = resolve_job(check_run(resolve(Document(config, {})), PluginManager.create()))
    with open_run(job, lambda event: None, "never", ()) as run:
        found = prepare_rows(job, run).held_out
    assert list(found) == names
    assert [len(found[name]) for name in names if name] == [{"hard": 2, "easy": 1}[name] for name in names if name]


def test_each_set_is_counted_in_the_ledger_on_the_terminal_and_on_the_page(llama, rows, sets, tmp_path, capsys):
    smolora_core.train(config_of(llama, rows, tmp_path / "run", data={"eval": sets}), listener=Terminal())
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert [(split, counts["kept"]) for split, counts in ledger.items()] == [("train", 24), ("eval.hard", 2), ("eval.easy", 1)]
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  held out")]
    assert [line.partition(" kept")[0] for line in shown] == ["  held out hard: 2 rows", "  held out easy: 1 rows"]
    heads = '<th class="number">training</th><th class="number">held-out hard</th><th class="number">held-out easy</th>'
    assert heads in (tmp_path / "run" / "report.html").read_text()


def test_the_first_set_is_what_the_loss_is_measured_on(train, sets, tmp_path):
    named = train(data={"eval": sets}).metrics
    alone = train(data={"eval": sets["hard"]}, output_dir=str(tmp_path / "alone")).metrics
    assert named["eval_loss"] == alone["eval_loss"]
    assert named["eval_loss_before"] == alone["eval_loss_before"]


def test_rows_of_a_set_that_are_trained_too_are_counted(train, sets, tmp_path):
    train(data={"eval": sets})
    assert [event["text"] for event in events(tmp_path / "run", "warning")] == [
        "1 of 1 rows of data.eval.easy are also training rows, so the evaluation loss is too optimistic"
    ]


def test_labels_of_every_set_must_occur_in_training(tmp_path):
    model = save_encoder(tmp_path / "bert")
    train = [{"text": f"the film was {label}", "label": label} for label in ("good", "bad") for _ in range(4)]
    sets = {
        name: write(tmp_path / f"{name}.jsonl", {"text": "it", "label": label}) for name, label in (("a", "bad"), ("b", "?"))
    }
    rows = Path(write(tmp_path / "train.jsonl", *train))
    with pytest.raises(DatasetError) as error:
        smolora_core.train(config_of(model, rows, tmp_path / "run", task="sequence-classification", data={"eval": sets}))
    what = "data.eval: label '?' occurs in held-out rows but not in training rows; the training labels are: bad, good"
    assert str(error.value) == what


def test_check_looks_at_each_set(tmp_path, llama, sets, capsys):
    config = config_of(llama, rows_in(tmp_path), tmp_path / "run", data={"eval": sets})
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    assert main(["check", str(tmp_path / "run.yaml")]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("eval")] == [
        ["eval.hard", sets["hard"], "text:", "text"],
        ["eval.easy", sets["easy"], "text:", "text"],
    ]
    write(Path(sets["easy"]), {"txet": "it"})
    assert main(["check", str(tmp_path / "run.yaml")]) == 2
    assert capsys.readouterr().err.startswith(f"{sets['easy']}:1 has no column 'text'; did you mean 'txet'?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda sets: {**sets, "easy": write(Path(sets["easy"]), {"text": "a mat"})},
            "the held-out data changed since the checkpoint; "
            "this key cannot change on resume; restore it, or pass --override data.eval.easy",
        ),
        (
            lambda sets: dict(reversed(sets.items())),
            "the held-out data changed since the checkpoint; "
            "this key cannot change on resume; restore it, or pass --override data.eval",
        ),
        (
            lambda sets: {"hard": sets["hard"], "plain": sets["easy"]},
            "data.eval.easy changed from '{easy}' to not set; "
            "this key cannot change on resume; restore it, or pass --override data.eval.easy",
        ),
        (
            lambda sets: sets["hard"],
            "data.eval changed from not set to '{hard}'; "
            "this key cannot change on resume; restore it, or pass --override data.eval",
        ),
    ],
    ids=["content", "order", "name", "one"],
)
def test_sets_that_changed_stop_a_resume(train, sets, change, message):
    with pytest.raises(Injected):
        train(plugins=(fail_at(5, "on_step_begin", "raise"),), data={"eval": sets})
    expected = message.format(**sets)
    with pytest.raises(ConfigError) as error:
        train(resume="auto", data={"eval": change(sets)})
    assert expected in str(error.value)
    assert train(resume="auto", overrides=("data.eval",), data={"eval": change(sets)}).steps == 6
