"""A process that is killed at any operation of a save loses nothing that was committed, and leaves nothing behind."""

import shutil

import pytest

from smolora_core.checkpoints.manifest import verify
from smolora_core.checkpoints.retention import INDEX
from tests.support.disks import checkpoint, commit, files_of, killed_at, names, store, writing

# What is there, what is saved, and what must be there in the end.
SAVES = {
    "first": ((), 1, None, {"checkpoint-1"}),
    "with retention": ((1, 2), 3, None, {"checkpoint-2", "checkpoint-3"}),
    "of the same step": ((1, 2), 2, None, {"checkpoint-1", "checkpoint-2"}),
    "of the final adapter": ((1, 2), 2, "adapter", {"checkpoint-1", "checkpoint-2", "adapter"}),
}


@pytest.mark.parametrize("middle", [False, True], ids=["before", "in the middle"])
@pytest.mark.parametrize("save", SAVES)
def test_a_kill_at_every_operation(tmp_path, save, middle):
    there, step, name, expected = SAVES[save]
    for each in there:
        commit(store(tmp_path / "before"), each)
    if name:
        commit(store(tmp_path / "before"), 1, "old", name)
    states, number = [], 0
    killed = True
    while killed:
        number += 1
        run = tmp_path / f"run-{number}"
        if there:
            shutil.copytree(tmp_path / "before", run)

        def saving(disk, between, run=run):
            store(run, disk).commit(checkpoint(step), [("one", writing(files_of(step, "new"), between=between))], name)

        killed = killed_at(number, middle=middle, save=saving)
        again = store(run)
        again.recover()
        newest = again.newest_valid()
        assert newest.skipped == ()
        place = run / (name or f"checkpoint-{step}")
        new = place.exists() and (place / "weights.bin").read_bytes() == files_of(step, "new")["weights.bin"]
        if there:
            assert newest.committed.manifest.step == (step if new and not name else max(there))
        states.append(new)
        commit(again, step, "again", name)
        assert names(run) == {*expected, INDEX}
        assert all(verify(run / each) for each in expected)
    # Once it is complete, it is there whatever comes.
    assert states == sorted(states)
    assert {False, True} == set(states)
    assert number > 20
