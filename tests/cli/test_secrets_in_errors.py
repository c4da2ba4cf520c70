"""What a command says when it ends badly tells no secret, wherever the secret was given."""

import os
import subprocess
import sys

import pytest

KEY = "canary-0123456789"
FAILING = f"""
from smolora_core import hookimpl
@hookimpl
def smolora_check_config(config):
    raise RuntimeError("401 for key {KEY} of https://user:PW@hub/x?token=abc")
"""
TOLD = "error: RuntimeError: 401 for key redacted of https://redacted@hub/x?token=redacted"


@pytest.fixture
def failing(place):
    (place / "mine.py").write_text(FAILING)
    return place


def first_line(smolora, *arguments):
    status, _, err = smolora("check", "run.yaml", *arguments)
    assert status > 0
    return err.splitlines()[0]


def test_a_plugins_error_tells_no_secret_of_the_environment(failing, smolora, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", KEY)
    assert first_line(smolora, "--plugin", "mine.py") == TOLD


@pytest.mark.parametrize("flag", [("--training.extra.hub_token", KEY), (f"--training.extra.hub-token={KEY}",)])
def test_it_tells_no_secret_of_a_flag(failing, smolora, flag):
    assert first_line(smolora, *flag, "--plugin", "mine.py") == TOLD


def test_it_tells_no_secret_of_the_config_file(failing, smolora):
    with (failing / "run.yaml").open("a") as file:
        file.write(f"lora: {{extra: {{api_key: {KEY}}}}}\n")
    assert first_line(smolora, "--plugin", "mine.py") == TOLD


def test_a_mistake_found_before_the_run_tells_no_password(place, smolora):
    line = first_line(smolora, "--model.path", "https://user:PW@hub/x")
    assert "PW" not in line
    assert "https://redacted@hub/x" in line


def test_a_traceback_tells_no_secret(failing):
    done = subprocess.run(
        [sys.executable, "-m", "smolora_core", "check", "run.yaml", "--plugin", "mine.py", "--debug"],
        env={**os.environ, "HF_TOKEN": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert TOLD.removeprefix("error: ") in done.stderr
    assert KEY not in done.stderr
    assert "PW" not in done.stderr
