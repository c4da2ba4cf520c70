"""Plugins given as flags stay part of the run: in its config, and in the command that is said to come next."""

import shlex
from pathlib import Path

import pytest
import yaml

LOSS = (
    "from smolora_core import Loss, hookimpl\n"
    "def mine(logits, targets):\n"
    "    import torch.nn.functional as F\n"
    "    return F.cross_entropy(logits, targets, reduction='none')\n"
    "@hookimpl\n"
    "def smolora_losses():\n"
    "    yield Loss(name='mine', summary='mine', implementation=mine)\n"
)


@pytest.fixture
def mine(place: Path) -> Path:
    (place / "mine.py").write_text(LOSS)
    return place


def test_the_written_config_runs_again_without_the_flags(mine: Path, smolora) -> None:
    smolora("train", "run.yaml", "--plugin", "mine.py", "--no-plugin", "memory", "--loss", "mine")
    written = (mine / "out" / "run.yaml").read_text()
    assert '  load: ["mine.py"]  # --plugin' in written
    assert '  disable: ["memory"]  # --no-plugin' in written
    status, _, err = smolora("train", "out/run.yaml", "--output_dir", "again")
    assert (status, err) == (0, "")


def test_flags_come_on_top_of_what_the_config_says(mine: Path, smolora) -> None:
    (mine / "other.py").write_text(LOSS.replace("'mine'", "'other'"))
    with (mine / "run.yaml").open("a") as stream:
        stream.write("plugins: {load: [other.py]}\n")
    smolora("train", "run.yaml", "--plugin", "mine.py", "--plugin", "other.py")
    written = (mine / "out" / "run.yaml").read_text()
    assert yaml.safe_load(written)["plugins"]["load"] == ["other.py", "mine.py"]
    assert '  load: ["other.py", "mine.py"]  # run.yaml:6, --plugin' in written


def test_the_next_command_repeats_the_flags(mine: Path, smolora) -> None:
    flags = ["--plugin", "mine.py", "--no-plugin", "smolora:memory", "--no-plugins", "--strict-plugins"]
    _, out, _ = smolora("check", "run.yaml", *flags, "--loss", "mine")
    assert out.splitlines()[-1] == f"ok       next: smolora train run.yaml --loss mine {' '.join(flags)}"


def test_the_next_commands_can_be_pasted_into_a_shell(place: Path, smolora) -> None:
    (place / "my run.yaml").write_text((place / "run.yaml").read_text())
    arguments = ["my run.yaml", "--output_dir", "my $runs"]
    _, out, _ = smolora("check", *arguments)
    assert shlex.split(out.splitlines()[-1].partition("next: ")[2]) == ["smolora", "train", *arguments]
    _, out, _ = smolora("train", *arguments)
    assert shlex.split(out.splitlines()[-1].partition("next ")[2]) == ["smolora", "generate", "my $runs/adapter", "..."]
