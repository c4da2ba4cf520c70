"""One process at a time writes in a run's folder; when it dies, however it dies, the folder is free."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from textwrap import dedent

import pytest

from smolora_core.checkpoints.lock import LOCK, RUN, lock_folder, run_id_of
from smolora_core.errors import CheckpointError, ConfigError
from tests.support.disks import HookedDisk, commit, names, store

HOLDING = """
    import os, sys, time
    from pathlib import Path
    from smolora_core.checkpoints.lock import lock_folder

    held = lock_folder(Path(sys.argv[1]))
    worker = os.fork() if sys.argv[2] == "with a worker" else None
    # Only a process that has begun has let go of what it was forked with.
    if not worker:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path, request):
    """Another process that holds the folder, as does a process that it has forked."""
    command = [sys.executable, "-c", dedent(HOLDING), tmp_path, getattr(request, "param", "")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.worker = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    if process.worker != process.pid:
        os.kill(process.worker, signal.SIGKILL)
    process.stdout.close()


def test_a_second_process_is_refused(tmp_path, holder):
    with pytest.raises(ConfigError) as error:
        lock_folder(tmp_path)
    started = json.loads((tmp_path / RUN).read_text())["started"]
    assert str(error.value) == (
        f"{tmp_path} the run folder is locked by another process (pid {holder.pid}, since {started}); "
        "wait for it to finish, or choose another folder"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", started)


@pytest.mark.parametrize("holder", ["", "with a worker"], indirect=True, ids=["alone", "with a worker"])
def test_the_folder_is_free_when_its_holder_is_killed(tmp_path, holder):
    """Also while a process lives that the holder has forked: one that loads data, say."""
    run_id = run_id_of(tmp_path)
    holder.kill()
    holder.wait()
    with lock_folder(tmp_path) as held:
        assert held.run_id == run_id
    assert json.loads((tmp_path / RUN).read_text())["pid"] == os.getpid()


def test_the_same_process_is_refused_too(tmp_path):
    with lock_folder(tmp_path), pytest.raises(ConfigError, match=f"pid {os.getpid()}, since"):
        lock_folder(tmp_path)


def test_a_folder_that_was_released_can_be_held(tmp_path):
    for _ in range(2):
        with lock_folder(tmp_path / "run"):
            assert names(tmp_path / "run") == {LOCK, RUN}


def test_nobody_else_may_look_into_a_run(tmp_path):
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "run").iterdir())


def test_a_run_that_goes_on_keeps_its_name_and_another_gets_its_own(tmp_path):
    with lock_folder(tmp_path) as first:
        name = first.run_id
    with lock_folder(tmp_path) as second:
        assert (second.run_id, second.created) == (name, first.created)
        second.start_new_run()
        assert second.run_id == run_id_of(tmp_path) != name


@pytest.mark.parametrize("content", ["", "[]", '{"run_id": null}', "\x00"])
def test_a_damaged_record_is_written_anew(tmp_path, content):
    (tmp_path / RUN).write_text(content)
    with lock_folder(tmp_path) as held:
        assert held.run_id == run_id_of(tmp_path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/run cannot be locked \(.*(exists|Not a directory)"):
        lock_folder(tmp_path / "file" / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="locks are made otherwise there")
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    said = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path, said.append) as held:
        assert run_id_of(tmp_path) == held.run_id
    assert said == [
        f"the file system cannot lock {tmp_path / LOCK} ([Errno {errno.ENOTSUP}] {os.strerror(errno.ENOTSUP)}): "
        "do not start a second run in this folder"
    ]


@pytest.mark.parametrize("content", [None, "torn", "{}", '{"run_id": 5}', '{"run_id": ""}', "[" * 100_000])
def test_a_run_whose_record_is_lost_is_that_of_its_newest_valid_checkpoint(tmp_path, content):
    for step in (1, 2):
        commit(store(tmp_path), step)
    (tmp_path / "checkpoint-2" / "weights.bin").write_bytes(b"")
    if content is not None:
        (tmp_path / RUN).write_text(content)
    said = []
    with lock_folder(tmp_path, said.append) as held:
        assert held.run_id == run_id_of(tmp_path) == "run-1"
    assert said == ["run.json is missing or damaged; recovered the run id from checkpoint-1"]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("elsewhere")], ids=["folder", "link"])
def test_a_record_that_cannot_be_read_is_no_new_run(tmp_path, make):
    make(tmp_path / RUN)
    with pytest.raises(CheckpointError, match=r"cannot be locked \(\[Errno"):
        lock_folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"run\.json cannot be read \("):
        run_id_of(tmp_path)
    assert names(tmp_path) == {LOCK, RUN}


def full(operation, arguments, perform):
    if operation == "write":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return perform()


def test_a_run_that_is_known_can_be_held_on_a_full_disk(tmp_path):
    with lock_folder(tmp_path) as first:
        run_id = first.run_id
    said = []
    with lock_folder(tmp_path, said.append, HookedDisk(full)) as held:
        assert held.run_id == run_id
        with pytest.raises(CheckpointError, match=r"run\.json cannot be written \(No space left on device\)"):
            held.start_new_run()
    assert said == ["run.json could not be updated (No space left on device)"]


def test_a_run_cannot_begin_on_a_full_disk(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be locked \(\[Errno 28\] No space left on device\)"):
        lock_folder(tmp_path, disk=HookedDisk(full))
    lock_folder(tmp_path).release()
