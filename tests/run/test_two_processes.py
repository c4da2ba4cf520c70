"""A whole run of two processes: one folder, one log, the same adapter as one process makes."""

import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.support.runs import config_of, events


def changes(rows):
    """24 rows are as many whole steps of two processes as of one."""
    return {"lora": {"dropout": 0.0}, "data": {"eval": str(rows)}}


def torchrun(file, *more):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "smolora_core", "train", str(file)]
    return subprocess.run([*command, *more], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def file(llama, rows, tmp_path):
    values = config_of(llama, rows, tmp_path / "run", training={"gradient_accumulation_steps": 1}, **changes(rows))
    place = tmp_path / "run.yaml"
    place.write_text(yaml.safe_dump(values), encoding="utf-8")
    return place


@pytest.mark.slow
def test_two_processes_make_the_adapter_of_one_and_go_on_together(file, rows, train, tmp_path):
    first = torchrun(file, "--training.max_steps", "4")
    assert first.returncode == 0, first.stderr[-3000:]
    second = torchrun(file, "--resume", "auto")
    assert second.returncode == 0, second.stderr[-3000:]
    run = tmp_path / "run"
    assert [each["step"] for each in events(run, "log")] == [1, 2, 3, 4, 5, 6]
    assert [each["step"] for each in events(run, "resumed")] == [4]
    assert second.stdout.count("saved ") == 1

    train(output_dir=str(tmp_path / "one"), training={"max_steps": 4}, **changes(rows))
    train(output_dir=str(tmp_path / "one"), resume="auto", **changes(rows))
    theirs, ours = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (tmp_path / "one", run))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-6)
    assert [each["loss"] for each in events(run, "eval")] == pytest.approx(
        [each["loss"] for each in events(tmp_path / "one", "eval")], rel=1e-5
    )
