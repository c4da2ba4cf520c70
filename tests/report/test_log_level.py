"""What is told of a run at each log level, on a terminal and from Python."""

import json
import logging

import pytest

from smolora_core import SmoLoRA, TrainingConfig
from smolora_core.cli import main

ROWS = [{"text": f"the film was good, said {number} of us"} for number in range(8)]


@pytest.fixture
def shown(llama, tmp_path, capfd):
    def train(*flags: str) -> list[str]:
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
        run = ["--model", str(llama), "--data.train", str(tmp_path / "rows.jsonl"), "--output_dir", str(tmp_path / "run")]
        assert main(["train", *run, "--training.max_steps", "1", *flags]) == 0
        return [line.split()[0] for line in capfd.readouterr().out.splitlines() if line.strip()]

    return train


def test_info_tells_what_is_for_a_person(shown):
    topics = shown()
    assert "saved" in topics and "event" not in topics


def test_debug_tells_every_event(shown):
    assert {"saved", "event"} <= set(shown("--debug", "--checkpoints.save_steps", "1", "--training.max_steps", "2"))


def test_warning_tells_warnings_only(shown):
    assert set(shown("--debug.log_level", "WARNING")) <= {"warning"}


def test_error_tells_nothing_of_a_run_that_ends_well(shown):
    assert shown("--debug.log_level", "ERROR") == []


@pytest.mark.parametrize(("level", "expected"), [("INFO", True), ("WARNING", False)])
def test_from_python_events_are_logged(llama, tmp_path, caplog, level, expected):
    lora = SmoLoRA(
        str(llama),
        ROWS,
        output_dir=str(tmp_path / "run"),
        training=TrainingConfig(max_steps=1, max_seq_length=64),
        debug={"log_level": level},
    )
    with caplog.at_level(logging.NOTSET):
        lora.train()
    said = [record.getMessage() for record in caplog.records if record.name == "smolora"]
    assert any(text.startswith("finished:") for text in said) is expected
