"""What a person may get wrong when generating, found before torch is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

HINT = "a prompt that starts with '-' is given as --prompt=..., or after --"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--max-new-tokens", "0"], "max_new_tokens must be an integer above 0, got 0"),
        (["--temperature", "nan"], "temperature must be a number of at least 0, got nan"),
        (["--device", "gpu"], "device must be one of auto, cpu, cuda, mps, got 'gpu'; did you mean 'cpu'?"),
    ],
)
def test_an_option_out_of_range_gets_its_line(smolora, flags: list[str], line: str) -> None:
    assert smolora("generate", "out/adapter", "a", *flags) == (2, "", f"{line}\n")


def test_options_are_looked_at_before_torch_is_imported() -> None:
    code = (
        "import sys, smolora_core.cli as c\n"
        "assert c.main(['generate', 'x', 'a', '--top-p', '2']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_a_prompt_that_is_not_utf_8_is_an_error() -> None:
    command = [sys.executable, "-X", "utf8", "-m", "smolora_core", "generate", "x", b"caf\xe9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "a prompt is not UTF-8 at character 4; pass it as UTF-8\n")


@pytest.mark.parametrize("prompt", [["- a cat"], ["-x"], ["--prompt", "- a cat"]])
def test_a_prompt_that_looks_like_a_flag_gets_a_hint(smolora, prompt: list[str]) -> None:
    status, _, err = smolora("generate", "out/adapter", *prompt)
    assert (status, err.splitlines()[-1]) == (2, HINT)


@pytest.mark.parametrize("prompt", [["--prompt=- a cat"], ["--", "- a cat"]])
def test_the_hint_is_right(place: Path, smolora, prompt: list[str]) -> None:
    assert smolora("generate", "tiny", "--max-new-tokens", "1", "--device", "cpu", *prompt)[0] == 0
