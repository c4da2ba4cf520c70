"""A checkpoint appears whole or not at all, and nothing of the user's is lost."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from textwrap import dedent

import pytest

from smolora_core.checkpoints.store import MANIFEST, Checkpoint, commit, committed_steps, keep_latest
from smolora_core.errors import CheckpointError


def checkpoint(step=1, **metrics):
    return Checkpoint(step=step, model=None, tokenizer=None, metrics=metrics, config={"seed": 42})


def writing(**files):
    """A writer of files by name, `__` standing for a folder and `_` for the dot."""

    def write(checkpoint, directory):
        for name, content in files.items():
            path = directory / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")

    return write


def committed(place, step=1, *, content="new", **metrics):
    return commit(checkpoint(step, **metrics), place, [("one", writing(a_txt=content))])


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }


def manifest(place):
    return json.loads((place / MANIFEST).read_text(encoding="utf-8"))


def test_a_checkpoint_holds_what_all_writers_wrote(tmp_path):
    place = tmp_path / "run" / "checkpoint-1"
    writers = [("one", writing(a_txt="a")), ("two", writing(b_txt="b", deep__c_txt="c"))]
    assert commit(checkpoint(), place, writers) == place
    assert contents(place) == {"a.txt": b"a", "b.txt": b"b", "deep/c.txt": b"c"}
    assert [path.name for path in place.parent.iterdir()] == ["checkpoint-1"]


def test_its_manifest_is_true(tmp_path):
    place = commit(checkpoint(7, loss=0.5), tmp_path / "checkpoint-7", [("one", writing(a_txt="ä", deep__c_txt=""))])
    said = manifest(place)
    assert (said["schema"], said["step"], said["metrics"], said["config"]) == (1, 7, {"loss": 0.5}, {"seed": 42})
    assert said["files"] == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents(place).items()
    }


def test_its_manifest_is_json_though_a_metric_is_not_finite(tmp_path):
    place = committed(tmp_path / "checkpoint-1", loss=float("nan"), eval_loss=float("inf"))
    assert manifest(place)["metrics"] == {"loss": None, "eval_loss": None}


def test_every_writer_begins_with_an_empty_folder(tmp_path):
    found = []

    def looking(checkpoint, directory):
        found.append(list(directory.iterdir()))
        (directory / f"{len(found)}.txt").touch()

    commit(checkpoint(), tmp_path / "checkpoint-1", [("one", looking), ("two", looking)])
    assert found == [[], []]


def test_nobody_else_may_read_a_checkpoint(tmp_path):
    assert committed(tmp_path / "checkpoint-1").stat().st_mode & 0o777 == 0o700


def test_nothing_is_visible_before_all_is_written(tmp_path):
    seen = []

    def looking(checkpoint, directory):
        seen.append((committed_steps(tmp_path), list(tmp_path.glob("checkpoint-*"))))
        writing(a_txt="a")(checkpoint, directory)

    commit(checkpoint(), tmp_path / "checkpoint-1", [("one", looking)])
    assert seen == [([], [])]
    assert committed_steps(tmp_path) == [1]


def test_a_checkpoint_replaces_the_one_in_its_place(tmp_path):
    place = tmp_path / "adapter"
    commit(checkpoint(), place, [("one", writing(old_txt="old"))])
    committed(place, 2)
    assert contents(place) == {"a.txt": b"new"}
    assert manifest(place)["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_of_the_users_is_put_aside(tmp_path):
    place = tmp_path / "adapter"
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    committed(place)
    (kept,) = tmp_path.glob("adapter-before-*")
    assert contents(kept) == {"thesis.txt": b"mine"}
    assert contents(place) == {"a.txt": b"new"}


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "adapter").mkdir()
    committed(tmp_path / "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def disk_full(checkpoint, directory):
    (directory / "half.txt").write_text("half")
    raise OSError(28, "No space left on device")


def interrupted(checkpoint, directory):
    (directory / "half.txt").write_text("half")
    raise KeyboardInterrupt


def linking(checkpoint, directory):
    (directory / "a.txt").symlink_to(__file__)


FAILURES = {
    "full": (disk_full, CheckpointError, "checkpoint of step 2 was not written ([Errno 28] No space left on device); "),
    "interrupted": (interrupted, KeyboardInterrupt, ""),
    "wrong": (lambda checkpoint, directory: {}[1], KeyError, ""),
    "nothing": (lambda checkpoint, directory: None, CheckpointError, "checkpoint writer 'two' wrote nothing"),
    "folder": (
        lambda checkpoint, directory: (directory / "x").mkdir(),
        CheckpointError,
        "checkpoint writer 'two' wrote nothing",
    ),
    "link": (linking, CheckpointError, "checkpoint writer 'two' wrote 'a.txt', which is no plain file"),
    "clash": (
        writing(a_txt="b"),
        CheckpointError,
        "checkpoint writer 'two' wrote 'a.txt', which checkpoint writer 'one' writes",
    ),
    "core": (
        writing(manifest_json="{}"),
        CheckpointError,
        "checkpoint writer 'two' wrote 'manifest.json', which the core writes",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_what_was_there(tmp_path, failure):
    writer, error_class, message = FAILURES[failure]
    place = committed(tmp_path / "checkpoint-2", content="old")
    before = manifest(place)
    with pytest.raises(error_class) as error:
        commit(checkpoint(2), place, [("one", writing(a_txt="new")), ("two", writer)])
    assert str(error.value).removeprefix(f"{place} ").startswith(message)
    assert (contents(place), manifest(place)) == ({"a.txt": b"old"}, before)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_an_error_of_a_writer_says_whose_it_is(tmp_path):
    with pytest.raises(KeyError) as error:
        commit(checkpoint(3), tmp_path / "checkpoint-3", [("mine", FAILURES["wrong"][0])])
    assert error.value.__notes__ == ["raised by checkpoint writer 'mine' at step 3"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        committed(tmp_path / "run" / "checkpoint-1")


def test_a_place_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CheckpointError) as error:
        committed(tmp_path / "run" / "checkpoint-1")
    assert str(error.value).startswith(f"{tmp_path / 'run' / 'checkpoint-1'} checkpoint of step 1 was not written (")


def test_the_latest_by_step_are_kept(tmp_path):
    for step in (100, 9, 20):
        committed(tmp_path / f"checkpoint-{step}", step)
    assert committed_steps(tmp_path) == [9, 20, 100]
    keep_latest(tmp_path, 2)
    assert committed_steps(tmp_path) == [20, 100]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-20", "checkpoint-100"}


def test_what_this_protocol_has_not_written_is_never_removed(tmp_path):
    others = ("checkpoint-1", "checkpoint-best", "checkpoint-", "adapter", "data")
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    (tmp_path / "checkpoint-best" / MANIFEST).write_text("{}")
    for step in (2, 3):
        committed(tmp_path / f"checkpoint-{step}", step)
    keep_latest(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "checkpoint-3"}


def test_the_next_commit_clears_away_what_a_crash_left(tmp_path):
    for name in (".staging-checkpoint-5-0123abcd", ".trash-checkpoint-4-0123abcd", ".replaced-checkpoint-6-0123abcd"):
        shutil.copytree(committed(tmp_path / "checkpoint-6", 6), tmp_path / name)
    (tmp_path / ".staging-mine").mkdir()
    committed(tmp_path / "checkpoint-7", 7)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-6", "checkpoint-7", ".staging-mine"}


def test_the_next_commit_puts_back_what_a_crash_left_aside(tmp_path):
    committed(tmp_path / "adapter", content="old").rename(tmp_path / ".replaced-adapter-0123abcd")
    committed(tmp_path / "checkpoint-7", 7)
    assert contents(tmp_path / "adapter") == {"a.txt": b"old"}
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "checkpoint-7"}


KILLED_AT = """
    import os, signal, sys
    from pathlib import Path
    from smolora_core.checkpoints.store import Checkpoint, commit

    last, place = int(sys.argv[1]), Path(sys.argv[2])
    operations = 0

    def count(event, arguments):
        global operations
        if event in ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove") and place.name in str(arguments):
            operations += 1
            if operations == last:
                os.kill(os.getpid(), signal.SIGKILL)

    def write(checkpoint, directory):
        (directory / "a.txt").write_text("new")

    sys.addaudithook(count)
    commit(Checkpoint(step=2, model=None, tokenizer=None, metrics={}, config={}), place, [("one", write)])
"""


def test_a_kill_at_any_operation_leaves_the_old_or_the_new(tmp_path):
    """After each file operation of a commit in turn, the process is killed; the next commit finds a whole checkpoint."""
    states = []
    for last in range(1, 100):
        run = tmp_path / str(last)
        place = committed(run / "adapter", content="old")
        command = [sys.executable, "-c", dedent(KILLED_AT), str(last), place]
        killed = subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
        committed(run / "checkpoint-9", 9)
        assert {path.name for path in run.iterdir()} == {"adapter", "checkpoint-9"}
        assert manifest(place)["files"]["a.txt"]["sha256"] == hashlib.sha256((place / "a.txt").read_bytes()).hexdigest()
        states.append((place / "a.txt").read_text())
        if not killed:
            break
    assert len(states) > 10
    assert states == sorted(states, reverse=True)
    assert set(states) == {"old", "new"}
