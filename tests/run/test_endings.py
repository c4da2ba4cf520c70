"""How a run ends that does not reach its end: saves that fail, numbers that go wrong, signals, a folder that is taken."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from smolora_core import CheckpointWriter, TrainingError, hookimpl
from smolora_core.checkpoints.manifest import verify
from tests.support.injector import fail_at
from tests.support.runs import config_of, events


class Refusing:
    """A plugin whose writer fails at some steps."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    @hookimpl
    def smolora_checkpoint_writers(self) -> list[CheckpointWriter]:
        def write(checkpoint: object, directory: Path) -> None:
            if checkpoint.step in self.steps:
                raise OSError(28, "No space left on device")
            (directory / "card.txt").write_text("fine")

        return [CheckpointWriter(name="card", summary="a card", implementation=write)]


def saving(*refused: int, **more: object) -> dict[str, object]:
    return {
        "plugins": (Refusing(*refused),),
        "checkpoints": {"save_steps": 2, "writers": ["adapter", "card"], **more},
    }


def test_training_goes_on_after_a_save_that_failed(train, tmp_path):
    assert train(**saving(2)).steps == 6
    warned = [each["text"] for each in events(tmp_path / "run", "warning")]
    assert len(warned) == 1
    assert "checkpoint-2 could not be saved (No space left on device); it needs " in warned[0]
    assert warned[0].endswith("training continues, but stops if the next save fails too")


def test_it_stops_after_two_in_a_row(train, tmp_path):
    with pytest.raises(Exception, match="checkpoint-4 could not be saved"):
        train(**saving(2, 4), training={"final_adapter": "last"})
    assert not list((tmp_path / "run").glob("checkpoint-[0-9]*"))


def test_a_save_in_between_counts_anew(train):
    assert train(**saving(2, 6), training={"max_steps": 7}).steps == 7


def test_it_stops_at_once_if_it_shall(train):
    with pytest.raises(Exception, match="checkpoint-2 could not be saved"):
        train(**saving(2, save_failure="stop"))


def test_numbers_that_stay_wrong_stop_the_run_and_keep_what_was_good(train, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingError, match="the loss is nan at step 6, after skipping 3 steps in a row, on training rows"):
        train(plugins=(fail_at((3, 4, 5, 6), "on_step_begin", "nan"),), training={"max_steps": 9})
    assert verify(run / "checkpoint-2").step == 2
    assert not (run / "adapter").exists()
    for place in run.glob("checkpoint-[0-9]*"):
        verify(place)


def test_numbers_that_are_wrong_once_cost_a_step(train, tmp_path):
    assert train(plugins=(fail_at(3, "on_step_begin", "nan"),)).steps == 6
    said = "the loss is nan at step 3; skipping this step"
    assert said in [each["text"] for each in events(tmp_path / "run", "warning")]


@pytest.fixture
def file(llama, rows, tmp_path) -> Path:
    """The config of a run that takes a while."""
    values = config_of(
        llama, rows, tmp_path / "run", training={"max_steps": 100_000, "logging_steps": 1}, checkpoints={"save_steps": 50_000}
    )
    place = tmp_path / "run.yaml"
    place.write_text(yaml.safe_dump(values), encoding="utf-8")
    return place


def started(file: Path, *more: str) -> subprocess.Popen:
    """Start a run, and wait until it has taken some steps."""
    run = file.with_name("run")
    process = subprocess.Popen(
        [sys.executable, "-m", "smolora_core", "train", str(file), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    before: int | None = None
    while before is None or logged(run) < before + 3:
        if before is None and (run / "run.json").exists() and json.loads((run / "run.json").read_text())["pid"] == process.pid:
            before = logged(run)
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def logged(run: Path) -> int:
    """Count the lines of the log."""
    events = run / "events.jsonl"
    return events.read_text().count('"log"') if events.exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status", "more"),
    [
        (signal.SIGTERM, 143, ()),
        (signal.SIGTERM, 143, ("--training.extra.dataloader_num_workers", "2")),
        (signal.SIGINT, 130, ()),
        (signal.SIGHUP, 129, ()),
    ],
)
def test_a_signal_ends_it_with_a_checkpoint_of_the_step_it_was_at(file, sent, status, more):
    process = started(file, *more)
    log = file.with_name("run") / "events.jsonl"
    before = max(line["step"] for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "log")
    process.send_signal(sent)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    took = time.monotonic() - begun
    assert process.returncode == status
    # Besides the best one.
    step = max(verify(place).step for place in file.with_name("run").glob("checkpoint-[0-9]*"))
    assert step >= before
    assert f"stopped by {sent.name} after step {step}\n" in errors
    assert errors.endswith(f"resume with: smolora train {file.with_name('run')}/run.yaml --resume auto\n")
    # Most of it is the interpreter that ends.
    assert took < 15


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_until_the_first_is_gone(file):
    process = started(file)
    refused = subprocess.run(
        [sys.executable, "-m", "smolora_core", "train", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode == 2
    assert f"the run folder is locked by another process (pid {process.pid}, since 20" in refused.stderr
    process.kill()
    process.communicate()
    again = started(file, "--resume", "auto")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    assert again.returncode == 143


CANARY = "hf_canary_of_the_test"
# Pickles of protocol 2 and later begin so; zip archives, which torch.save writes, with PK.
PICKLED = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


def test_secrets_and_pickles_reach_no_output(file, tmp_path):
    process = subprocess.run(
        [
            *(sys.executable, "-m", "smolora_core", "train", str(file), "--training.max_steps", "3"),
            *(
                "--checkpoints.save_steps",
                "1",
                "--training.extra.run_name",
                f"https://user:{CANARY}@host/run",
                "--debug.save_intermediate",
                "true",
            ),
        ],
        capture_output=True,
        timeout=120,
        check=True,
        env={**os.environ, "HF_TOKEN": f"{CANARY}_2", "WANDB_API_KEY": f"{CANARY}_3"},
    )
    outputs = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert len(outputs) > 20
    for content in (process.stdout, process.stderr, *outputs.values()):
        assert CANARY.encode() not in content
    assert not [path for path, content in outputs.items() if content.startswith(PICKLED)]
    assert not [path for path in outputs if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_folder_of_a_run_is_nobody_elses_business(train, tmp_path):
    train(training={"max_steps": 2})
    folders = [tmp_path / "run", *(path for path in (tmp_path / "run").glob("checkpoint-*") if path.is_dir())]
    assert {oct(folder.stat().st_mode & 0o777) for folder in folders} == {"0o700"}
