"""A folder as a newcomer has it: a model, some rows and a config, with the shell standing in it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from smolora_core.cli import main

Shell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(llama, tmp_path / "tiny")
    rows = [
        {"text": f"the film was {word} and long, {number} of us said"}
        for number in range(6)
        for word in ("good", "bad", "short", "fine")
    ]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "run.yaml").write_text(
        "model: ./tiny\n"
        "output_dir: out\n"
        "data:\n"
        "  train: reviews.jsonl\n"
        "training: {max_steps: 3, logging_steps: 1, gradient_accumulation_steps: 1}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def smolora(capfd: pytest.CaptureFixture[str]) -> Shell:
    """Run a command line: status, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(arguments)
        return status, *capfd.readouterr()

    return run
