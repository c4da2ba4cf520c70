"""`smolora checkpoints`: what is there, whether it is whole, and what may go."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.lock import lock_folder
from smolora_core.checkpoints.store import Store
from smolora_core.cli import main
from tests.support.disks import commit, names


@pytest.fixture
def smolora(capfd):
    """Run a command line: status, output, errors."""

    def run(*arguments):
        capfd.readouterr()
        status = main(["checkpoints", *arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with three checkpoints and the final adapter, with the shell standing beside it."""
    monkeypatch.chdir(tmp_path)
    with lock_folder(Path("out")) as held:
        at = Store(folder=Path("out"), run_id=held.run_id)
        for step, loss in ((1, 0.5), (2, 0.75), (3, float("nan"))):
            commit(at, step, eval_loss=loss)
        commit(at, 3, name="adapter")
    return Path("out")


def test_checkpoints_are_listed(run, smolora):
    status, out, err = smolora("list", "out")
    lines = out.splitlines()
    assert (status, err, len(lines)) == (0, "", 4)
    assert [line.split("bytes  ")[-1] for line in lines[:3]] == [
        "eval_loss 0.5  best",
        "eval_loss 0.75",
        "eval_loss not finite",
    ]
    assert lines[0].startswith("step 1 ")
    assert lines[3] == "next     smolora checkpoints verify out"


def test_programs_get_a_list(run, smolora):
    said = json.loads(smolora("list", "out", "--json")[1])
    assert [(each["step"], each["metrics"], each["path"]) for each in said["checkpoints"]] == [
        (1, {"eval_loss": 0.5}, "out/checkpoint-1"),
        (2, {"eval_loss": 0.75}, "out/checkpoint-2"),
        (3, {"eval_loss": None}, "out/checkpoint-3"),
    ]
    assert said["unusable"] == []


def test_what_is_whole_is_said(run, smolora):
    assert smolora("verify", "out") == (
        0,
        "valid    out/checkpoint-1\nvalid    out/checkpoint-2\nvalid    out/checkpoint-3\nvalid    out/adapter\n"
        "next     smolora checkpoints list out\n",
        "",
    )


def test_what_is_not_whole_is_named_and_the_status_is_1(run, smolora):
    (run / "checkpoint-2" / "weights.bin").write_bytes(b"")
    (run / "adapter" / "deep" / "config.json").unlink()
    (run / "checkpoint-3" / "manifest.json").write_text("{}")
    (run / "checkpoint-1" / "notes.txt").write_text("mine")
    status, out, err = smolora("verify", "out")
    assert status == 1
    assert out.splitlines() == [
        "valid    out/checkpoint-1",
        "invalid  out/checkpoint-3/manifest.json is damaged",
        "invalid  out/checkpoint-2/weights.bin has 0 bytes, expected 40",
        "invalid  out/adapter/deep/config.json is missing",
        "next     smolora checkpoints list out",
    ]
    assert err == "warning: out/checkpoint-1/notes.txt is not part of the checkpoint\n"


def test_programs_get_what_is_not_whole(run, smolora):
    (run / "checkpoint-2" / "weights.bin").write_bytes(b"x" * 40)
    status, out, _ = smolora("verify", "out", "--json")
    assert (status, json.loads(out)) == (
        1,
        {
            "valid": ["out/checkpoint-1", "out/checkpoint-3", "out/adapter"],
            "invalid": [{"path": "out/checkpoint-2/weights.bin", "problem": "does not match its checksum"}],
            "surplus": [],
        },
    )


def test_old_ones_are_removed_but_the_best(run, smolora):
    with lock_folder(run) as held:
        commit(Store(folder=run, run_id=held.run_id), 4, eval_loss=0.7)
    assert smolora("prune", "out", "--keep", "2") == (
        0,
        "removed  out/checkpoint-2\nnext     smolora checkpoints list out\n",
        "",
    )
    assert {"checkpoint-1", "checkpoint-3", "checkpoint-4", "adapter"} < names(run)
    assert [each["step"] for each in json.loads((run / "checkpoint_metadata.json").read_text())["checkpoints"]] == [1, 3, 4]
    assert json.loads(smolora("prune", "out", "--keep", "2", "--json")[1]) == {"removed": []}


def test_nothing_is_removed_while_the_run_goes_on(run, smolora):
    with lock_folder(run):
        status, out, err = smolora("prune", "out", "--keep", "2")
    assert (status, out) == (2, "")
    assert err.startswith("out the run folder is locked by another process (pid ")
    assert {"checkpoint-1", "checkpoint-2", "checkpoint-3"} < names(run)


MISTAKES = [
    (("list", "otu"), "no folder 'otu'; give the folder that 'smolora train' wrote"),
    (("verify", "out/checkpoint-1"), "'out/checkpoint-1' is a checkpoint; did you mean 'out'?"),
    (("prune", "out/adapter", "--keep", "2"), "'out/adapter' is a checkpoint; did you mean 'out'?"),
    (("prune", "empty", "--keep", "2"), "'empty' does not identify its run; its run.json is missing or damaged"),
    (("prune", "out", "--keep", "1"), 'Invalid value "1" for --keep. Must be >= 2.'),
]


@pytest.mark.parametrize(("given", "line"), MISTAKES)
def test_mistakes_get_a_line(run, smolora, given, line):
    Path("empty").mkdir()
    assert smolora(*given) == (2, "", f"{line}\n")


def test_no_checkpoints_are_none(run, smolora):
    Path("empty").mkdir()
    assert smolora("list", "empty") == (0, "no checkpoints in 'empty'\n", "")
    assert smolora("verify", "empty") == (0, "no checkpoints in 'empty'\n", "")


def test_torch_is_not_imported(run):
    code = (
        "import sys, smolora_core.cli as c\n"
        "for command in (['list'], ['verify'], ['prune', '--keep', '2']):\n"
        "    assert c.main(['checkpoints', *command, 'out']) == 0\n"
        "assert not {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_what_the_run_removes_meanwhile_is_not_missed(run, smolora, monkeypatch):
    digest = Disk.digest

    def removing(disk, path):
        shutil.rmtree(run / "checkpoint-1", ignore_errors=True)
        return digest(disk, path)

    monkeypatch.setattr(Disk, "digest", removing)
    assert smolora("verify", "out")[:2] == (
        0,
        "valid    out/checkpoint-2\nvalid    out/checkpoint-3\nvalid    out/adapter\nnext     smolora checkpoints list out\n",
    )


def test_what_the_run_removes_while_it_is_listed_is_not_missed(run, smolora, monkeypatch):
    read = Disk.read

    def removing(disk, path):
        shutil.rmtree(run / "checkpoint-2", ignore_errors=True)
        return read(disk, path)

    monkeypatch.setattr(Disk, "read", removing)
    status, out, err = smolora("list", "out")
    assert (status, err, [line.split()[1] for line in out.splitlines()]) == (0, "", ["1", "3", "smolora"])


def test_old_ones_can_be_removed_from_a_full_disk(run, smolora, monkeypatch):
    with lock_folder(run) as held:
        commit(Store(folder=run, run_id=held.run_id), 4, eval_loss=0.7)

    def full(disk, path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Disk, "write", full)
    status, out, err = smolora("prune", "out", "--keep", "2")
    assert (status, out) == (0, "removed  out/checkpoint-2\nnext     smolora checkpoints list out\n")
    assert "run.json could not be updated (No space left on device)" in err
