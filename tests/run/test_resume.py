"""A run that stopped goes on where its newest checkpoint is, and ends as if it had never stopped."""

import json
import shutil
from pathlib import Path

import pytest

import smolora_core
from smolora_core import ConfigError
from smolora_core.report.events import read_events, without_repeats
from tests.support.injector import Injected, fail_at
from tests.support.runs import config_of, digests, events, rows_in

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(llama, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.raises(Injected):
        smolora_core.train(config_of(llama, rows_in(folder), folder / "run"), plugins=(fail_at(5, "on_step_begin", "raise"),))
    return folder / "run"


@pytest.fixture
def stopped(made, tmp_path) -> Path:
    """A copy of a run that failed at step 5, with checkpoints of steps 2 and 4, and of step 3, the best."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def logged(folder):
    """What was logged at each step, but for what time has a part in."""
    found = [each for each in without_repeats(read_events(folder / "events.jsonl")) if each.kind in ("log", "eval")]
    return [(each.kind, {k: v for k, v in each.values.items() if k != "tokens_per_second"}) for each in found]


def test_it_ends_with_the_same_adapter_and_the_same_log(stopped, train, tmp_path):
    train(resume="auto")
    train(output_dir=str(tmp_path / "whole"))
    assert digests(stopped / "adapter", WEIGHTS) == digests(tmp_path / "whole" / "adapter", WEIGHTS)
    state = ("optimizer.safetensors",)
    assert digests(stopped / "checkpoint-6", *state) == digests(tmp_path / "whole" / "checkpoint-6", *state)
    assert logged(stopped) == logged(tmp_path / "whole")


def test_where_it_goes_on_is_said(stopped, train):
    train(resume="auto")
    assert [(each["step"], each["checkpoint"]) for each in events(stopped, "resumed")] == [(4, str(stopped / "checkpoint-4"))]


def test_a_failed_run_leaves_what_ended_it_and_how_to_go_on(made):
    left = json.loads((made / "last_error.json").read_text())
    assert left.pop("created_utc")
    assert left == {
        "status": "failed",
        "type": "Injected",
        "text": "Injected: at step 5",
        "step": 4,
        "resume": f"smolora train {made}/run.yaml --resume auto",
    }


def test_once_it_goes_on_the_error_is_gone(stopped, train):
    train(resume="auto")
    assert not (stopped / "last_error.json").exists()


def test_an_older_checkpoint_can_be_named(stopped, train):
    train(resume=stopped / "checkpoint-2")
    assert [each["step"] for each in events(stopped, "resumed")] == [2]


def test_the_folder_of_the_run_means_its_newest_checkpoint(stopped, train):
    train(resume=stopped)
    assert [each["step"] for each in events(stopped, "resumed")] == [4]


def test_a_checkpoint_that_is_not_there_is_refused(stopped, train):
    with pytest.raises(ConfigError) as error:
        train(resume=stopped / "checkpoint-5")
    assert str(error.value) == (
        f"--resume '{stopped}/checkpoint-5' is not a checkpoint of the run in '{stopped}'; "
        "known: checkpoint-2, checkpoint-3, checkpoint-4"
    )


def test_a_damaged_checkpoint_is_skipped_and_it_is_said_why(stopped, train):
    weights = stopped / "checkpoint-4" / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    train(resume="auto")
    assert [each["step"] for each in events(stopped, "resumed")] == [3]
    assert f"skipped: {weights} does not match its checksum" in [each["text"] for each in events(stopped, "note")]


def test_without_a_checkpoint_it_begins_anew_and_keeps_what_was_there(stopped, train):
    for step in (2, 3, 4):
        shutil.rmtree(stopped / f"checkpoint-{step}")
    assert train(resume="auto").steps == 6
    assert (stopped / "previous-1" / "events.jsonl").is_file()


def test_without_being_asked_it_begins_anew(stopped, train):
    train()
    assert not events(stopped, "resumed")
    assert (stopped / "previous-1" / "checkpoint-4").is_dir()


def test_checkpoints_of_another_run_are_not_gone_on_from(stopped, train, tmp_path):
    train(output_dir=str(tmp_path / "other"), training={"max_steps": 2})
    shutil.copytree(stopped / "checkpoint-4", tmp_path / "other" / "checkpoint-4")
    train(output_dir=str(tmp_path / "other"), resume="auto")
    assert [each["step"] for each in events(tmp_path / "other", "resumed")] == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "given from Python seed changed from 42 to 1"),
        ({"lora": {"r": 4}}, "given from Python lora.r changed from 8 to 4"),
        ({"lora": {"alpha": 32}}, "given from Python lora.alpha changed from 16.0 to 32.0"),
        (
            {"lora": {"target_modules": ["q_proj", "o_proj"]}},
            "given from Python lora.target_modules changed from 'auto' to ['q_proj', 'o_proj']",
        ),
        ({"data": {"max_seq_length": 16}}, "given from Python data.max_seq_length changed from 32 to 16"),
        (
            {"training": {"gradient_accumulation_steps": None, "effective_batch_size": 8}},
            "given from Python training.effective_batch_size changed from 4 to 8",
        ),
        ({"loss": "focal"}, "given from Python loss.name changed from not set to 'focal'"),
    ],
)
def test_what_decides_what_is_learned_must_be_as_it_was(stopped, train, change, message):
    before = sorted(stopped.iterdir()), (stopped / "run.yaml").read_bytes()
    with pytest.raises(ConfigError) as error:
        train(resume="auto", **change)
    assert message in str(error.value)
    assert (sorted(stopped.iterdir()), (stopped / "run.yaml").read_bytes()) == before


def test_other_targets_of_equal_size_are_a_message_even_when_they_are_allowed(stopped, train):
    with pytest.raises(Exception, match="has different parameters: this run does not train"):
        train(resume="auto", overrides=("lora",), lora={"target_modules": ["q_proj", "k_proj", "v_proj", "up_proj"]})


def test_other_rows_under_the_same_name_are_refused(stopped, train, rows):
    rows.write_text(rows.read_text().replace("bad", "sad"), encoding="utf-8")
    with pytest.raises(ConfigError, match="the training data changed since the checkpoint"):
        train(resume="auto")


def test_the_same_rows_under_another_name_are_the_same(stopped, train, rows, tmp_path):
    moved = rows.rename(tmp_path / "moved.jsonl")
    train(resume="auto", data={"train": str(moved)})
    assert [each["step"] for each in events(stopped, "resumed")] == [4]


def test_a_change_can_be_allowed_and_is_written_down(stopped, train):
    train(resume="auto", overrides=("training.extra",), training={"extra": {"max_grad_norm": 0.5}})
    said = "training.extra.max_grad_norm changed from not set to 0.5; the new value is used from here on"
    assert said in [each["text"] for each in events(stopped, "note")]
    manifest = json.loads((stopped / "checkpoint-6" / "manifest.json").read_text())
    assert manifest["overrides"] == ["training.extra"]


def test_a_finished_run_can_be_made_longer(train, tmp_path):
    train(training={"max_steps": 4})
    assert train(resume="auto").steps == 6
    said = "training.max_steps changed from 4 to 6; the new value is used from here on"
    assert said in [each["text"] for each in events(tmp_path / "run", "note")]


def test_a_finished_run_has_nothing_left_to_do(train, tmp_path):
    first = train()
    before = digests(tmp_path / "run" / "adapter", WEIGHTS)
    again = train(resume="auto")
    assert (again.steps, again.metrics["eval_loss"]) == (6, first.metrics["eval_loss"])
    assert digests(tmp_path / "run" / "adapter", WEIGHTS) == before
