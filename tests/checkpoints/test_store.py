"""A checkpoint appears whole or not at all, and nothing of the user's is lost."""

import hashlib
import json
import os
import shutil

import pytest

from smolora_core.checkpoints.manifest import MANIFEST
from smolora_core.checkpoints.retention import INDEX, Keep
from smolora_core.checkpoints.store import Store
from smolora_core.errors import CheckpointError
from tests.support.disks import HastyDisk, checkpoint, names


def writing(**files):
    """A writer of files by name, `__` standing for a folder and `_` for the dot."""

    def write(checkpoint, directory):
        for name, content in files.items():
            path = directory / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")

    return write


def store(folder, **more):
    return Store(folder=folder, run_id="run-1", disk=HastyDisk(), **more)


def commit(what, place, writers):
    return store(place.parent).commit(what, writers, place.name)


def committed(place, step=1, *, content="new", **metrics):
    return commit(checkpoint(step, **metrics), place, [("one", writing(a_txt=content))])


def steps(run):
    return [each.manifest.step for each in store(run).found()]


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
    assert names(place.parent) == {"checkpoint-1", INDEX}


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
        seen.append((steps(tmp_path), list(tmp_path.glob("checkpoint-*"))))
        writing(a_txt="a")(checkpoint, directory)

    commit(checkpoint(), tmp_path / "checkpoint-1", [("one", looking)])
    assert seen == [([], [])]
    assert steps(tmp_path) == [1]


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
    "full": (disk_full, CheckpointError, "could not be saved (No space left on device); "),
    "interrupted": (interrupted, KeyboardInterrupt, ""),
    "wrong": (lambda checkpoint, directory: {}[1], KeyError, ""),
    "nothing": (lambda checkpoint, directory: None, CheckpointError, "checkpoint writer 'two' wrote nothing"),
    "folder": (
        lambda checkpoint, directory: (directory / "x").mkdir(),
        CheckpointError,
        "checkpoint writer 'two' wrote nothing",
    ),
    "link": (linking, CheckpointError, "checkpoint writer 'two' wrote 'a.txt', which is not a regular file"),
    "clash": (
        writing(a_txt="b"),
        CheckpointError,
        "checkpoint writer 'two' wrote 'a.txt', which belongs to checkpoint writer 'one'",
    ),
    "core": (
        writing(manifest_json="{}"),
        CheckpointError,
        "checkpoint writer 'two' wrote 'manifest.json', which belongs to the core",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_what_was_there(tmp_path, failure):
    writer, error_class, message = FAILURES[failure]
    place = committed(tmp_path / "checkpoint-2", 2, content="old")
    before = manifest(place)
    with pytest.raises(error_class) as error:
        commit(checkpoint(2), place, [("one", writing(a_txt="new")), ("two", writer)])
    assert str(error.value).removeprefix(f"{place} ").startswith(message)
    assert (contents(place), manifest(place)) == ({"a.txt": b"old"}, before)
    assert names(tmp_path) == {"checkpoint-2", INDEX}


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
    assert str(error.value).startswith(f"{tmp_path / 'run' / 'checkpoint-1'} could not be saved (")


def test_checkpoints_are_in_the_order_of_their_commits(tmp_path):
    for step in (100, 9, 20):
        committed(tmp_path / f"checkpoint-{step}", step)
    committed(tmp_path / "adapter", 20)
    assert [(each.manifest.step, each.manifest.seq) for each in store(tmp_path).found()] == [(100, 1), (9, 2), (20, 3)]
    committed(tmp_path / "checkpoint-9", 9)
    assert store(tmp_path).found()[-1].manifest.seq == 5


def test_what_may_go_goes_after_each_commit(tmp_path):
    at = store(tmp_path, keep=Keep(latest=2))
    for step, loss in enumerate((0.5, 0.1, 0.4, float("nan"), 0.3), start=1):
        at.commit(checkpoint(step, eval_loss=loss), [("one", writing(a_txt="a"))])
    assert steps(tmp_path) == [2, 4, 5]
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-4", "checkpoint-5", INDEX}


def test_a_damaged_checkpoint_is_none_of_the_latest(tmp_path):
    """Or the only one left might be damaged."""
    said = []
    at = store(tmp_path, keep=Keep(latest=2), warn=said.append)
    for step in (1, 2):
        at.commit(checkpoint(step), [("one", writing(a_txt="a"))])
    (tmp_path / "checkpoint-2" / "a.txt").write_text("b")
    store(tmp_path, keep=Keep(latest=2), warn=said.append).commit(checkpoint(3), [("one", writing(a_txt="a"))])
    assert steps(tmp_path) == [1, 2, 3]
    assert said == [f"{tmp_path / 'checkpoint-2' / 'a.txt'} does not match its checksum"]


def test_what_the_run_has_not_committed_is_never_removed(tmp_path):
    others = {"checkpoint-1", "checkpoint-best", "checkpoint-", "checkpoint-07", "adapter", "data"}
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    (tmp_path / "checkpoint-best" / MANIFEST).write_text("{}")
    Store(folder=tmp_path, run_id="run-2").commit(checkpoint(2), [("one", writing(a_txt="a"))])
    committed(tmp_path / "elsewhere" / "checkpoint-3", 3)
    (tmp_path / "checkpoint-3").symlink_to("elsewhere/checkpoint-3")
    for step in (4, 5, 6):
        committed(tmp_path / f"checkpoint-{step}", step)
    assert [place.name for place in store(tmp_path).retain(Keep(latest=2))] == ["checkpoint-4"]
    kept = {*others, "elsewhere", "checkpoint-2", "checkpoint-3", "checkpoint-5", "checkpoint-6", INDEX}
    assert names(tmp_path) == kept


def test_a_checkpoint_with_a_file_of_the_users_is_kept(tmp_path):
    said = []
    for step in (1, 2, 3):
        committed(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-1" / "notes.txt").write_text("mine")
    assert store(tmp_path, warn=said.append).retain(Keep(latest=2)) == []
    assert said == ["checkpoint-1 is not removed: it contains 'notes.txt', which is not part of the checkpoint"]
    committed(tmp_path / "checkpoint-1", 1)
    (aside,) = tmp_path.glob("checkpoint-1-before-*")
    assert (aside / "notes.txt").read_text() == "mine"


def test_the_index_says_what_the_manifests_say(tmp_path):
    committed(tmp_path / "checkpoint-3", 3, loss=0.5, eval_loss=float("inf"))
    (entry,) = json.loads((tmp_path / INDEX).read_text())["checkpoints"]
    assert entry == {
        "step": 3,
        "timestamp": manifest(tmp_path / "checkpoint-3")["created_utc"],
        "metrics": {"loss": 0.5, "eval_loss": None},
        "config": {"seed": 42},
        "path": str(tmp_path / "checkpoint-3"),
    }


@pytest.mark.parametrize("content", ["", "{}", '{"checkpoints": [{"step": 99, "path": "/elsewhere"}]}'])
def test_the_index_is_not_trusted(tmp_path, content):
    committed(tmp_path / "checkpoint-3", 3)
    right = (tmp_path / INDEX).read_text()
    (tmp_path / INDEX).write_text(content)
    assert steps(tmp_path) == [3]
    store(tmp_path).recover()
    assert (tmp_path / INDEX).read_text() == right


def aside(folder, role):
    return folder.rename(folder.with_name(f".{role}-{folder.name}-0123abcd"))


def test_a_sweep_removes_what_is_unfinished(tmp_path):
    committed(tmp_path / "checkpoint-6", 6)
    for name in (".staging-checkpoint-5-0123abcd", ".trash-checkpoint-4-0123abcd", ".replaced-checkpoint-6-0123abcd"):
        shutil.copytree(tmp_path / "checkpoint-6", tmp_path / name)
    (tmp_path / ".staging-mine").mkdir()
    assert store(tmp_path).recover() == ["removed an incomplete checkpoint-5", "removed an incomplete checkpoint-6"]
    assert names(tmp_path) == {"checkpoint-6", ".staging-mine", INDEX}


def test_a_sweep_adopts_what_is_complete(tmp_path):
    aside(committed(tmp_path / "checkpoint-7", 7), "staging")
    assert store(tmp_path).recover() == ["recovered checkpoint-7 from an interrupted save"]
    assert names(tmp_path) == {"checkpoint-7", INDEX}
    assert contents(tmp_path / "checkpoint-7") == {"a.txt": b"new"}


def test_a_sweep_adopts_only_what_is_newer(tmp_path):
    committed(tmp_path / "adapter", content="old")
    shutil.copytree(tmp_path / "adapter", tmp_path / ".staging-adapter-0123abcd")
    committed(tmp_path / "adapter", 2)
    shutil.copytree(tmp_path / "adapter", tmp_path / ".staging-adapter-4567abcd")
    store(tmp_path).recover()
    assert contents(tmp_path / "adapter") == {"a.txt": b"new"}
    assert names(tmp_path) == {"adapter"}


def test_a_sweep_does_not_adopt_what_another_run_has_left(tmp_path):
    place = Store(folder=tmp_path, run_id="run-2").commit(checkpoint(7), [("one", writing(a_txt="a"))])
    aside(place, "staging")
    store(tmp_path).recover()
    assert steps(tmp_path) == []


def test_a_sweep_puts_back_what_was_set_aside(tmp_path):
    aside(committed(tmp_path / "adapter", content="old"), "replaced")
    assert store(tmp_path).recover() == ["restored adapter after an interrupted save"]
    assert contents(tmp_path / "adapter") == {"a.txt": b"old"}


def test_a_sweep_keeps_what_is_whole_of_two(tmp_path):
    shutil.copytree(committed(tmp_path / "adapter", content="old"), tmp_path / ".replaced-adapter-0123abcd")
    (tmp_path / "adapter" / "a.txt").write_text("torn")
    store(tmp_path).recover()
    assert contents(tmp_path / "adapter") == {"a.txt": b"old"}
    assert names(tmp_path) == {"adapter"}


def test_a_commit_clears_away_what_a_failed_one_left(tmp_path):
    (tmp_path / ".staging-checkpoint-1-0123abcd").mkdir()
    committed(tmp_path / "checkpoint-2", 2)
    assert names(tmp_path) == {"checkpoint-2", INDEX}


def test_a_writer_that_exits_is_a_writer_that_failed(tmp_path):
    def leaving(checkpoint, directory):
        raise SystemExit(3)

    with pytest.raises(CheckpointError) as error:
        commit(checkpoint(3), tmp_path / "checkpoint-3", [("mine", leaving)])
    assert str(error.value) == "checkpoint writer 'mine' raised SystemExit(3) at step 3"
    assert names(tmp_path) == set()
