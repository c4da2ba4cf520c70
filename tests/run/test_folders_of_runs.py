"""Which run a folder is of, when another is begun in it, its record is lost, or it is moved."""

from pathlib import Path

import pytest

from smolora_core import ConfigError
from smolora_core.cli import main
from tests.support.injector import Injected, fail_at
from tests.support.runs import digests, events

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def stopped(train, tmp_path) -> Path:
    """A run that failed at step 5, with checkpoints of steps 2 and 4."""
    with pytest.raises(Injected):
        train(plugins=(fail_at(5, "on_step_begin", "raise"),))
    return tmp_path / "run"


def resumed(folder):
    return [each["step"] for each in events(folder, "resumed")]


def test_a_run_that_another_was_begun_over_goes_on_where_it_was_moved_to(stopped, train):
    aside = stopped / "previous-1"
    train()
    said = f"an earlier run was moved to {aside}; resume it with --output_dir {aside} --resume auto"
    assert said in [each["text"] for each in events(stopped, "note")]
    assert main(["train", str(aside / "run.yaml"), "--output_dir", str(aside), "--resume", "auto"]) == 0
    assert resumed(aside) == [4]
    assert digests(aside / "adapter", WEIGHTS) == digests(stopped / "adapter", WEIGHTS)


@pytest.mark.parametrize("content", [None, "torn"])
def test_a_run_goes_on_though_its_record_is_lost(stopped, train, content):
    (stopped / "run.json").unlink()
    if content:
        (stopped / "run.json").write_text(content)
    train(resume="auto")
    assert resumed(stopped) == [4]
    said = "run.json is missing or damaged; recovered the run id from checkpoint-4"
    assert said in [each["text"] for each in events(stopped, "note")]


def test_a_run_that_was_moved_goes_on_where_it_is(stopped, train, tmp_path):
    moved = stopped.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=f"to resume there, add --output_dir {moved}$"):
        train(resume=moved)
    train(resume=moved, output_dir=str(moved))
    assert resumed(moved) == [4]


def test_events_are_not_written_through_a_link(stopped, train, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (stopped / "events.jsonl").unlink()
    (stopped / "events.jsonl").symlink_to(precious)
    with pytest.raises(ConfigError, match="is a symlink and will not be written through; remove it"):
        train(resume="auto")
    assert precious.read_text() == "mine"
