"""A file system that refuses any operation of a save, once or from then on, harms nothing that was committed."""

import copy
import errno
import itertools
import os
import re
from pathlib import Path
from random import Random

import pytest
from safetensors import SafetensorError

from smolora_core.checkpoints.manifest import verify
from smolora_core.checkpoints.retention import INDEX
from smolora_core.errors import CheckpointError
from tests.support.disks import HookedDisk, checkpoint, commit, files_of, names, store
from tests.support.simulated_disk import SimulatedDisk

RUN = Path("/run")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
THERE = {"checkpoint-1", "checkpoint-2", INDEX}
ROOM = r"it needs at least [\d,]+ bytes, and [\d,]+ are free"


def refusing(disk, number, code, *, forever):
    """A disk that refuses its operation of a number, or all from it on; and what counts them."""
    counter = itertools.count(1)

    def hook(operation, arguments, perform):
        count = next(counter)
        if count == number or (forever and count > number):
            raise OSError(code, os.strerror(code), str(arguments[0]))
        return perform()

    return HookedDisk(hook, disk), counter


def names_in(disk):
    return {entry.path.name for entry in disk.entries(RUN)}


@pytest.mark.parametrize("step", [3, 2], ids=["another", "the same"])
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_every_operation_refused(code, forever, step):
    before = SimulatedDisk(Random(0), "ordered")
    for each in (1, 2):
        commit(store(RUN, before), each)
    outcomes = []
    for number in itertools.count(1):
        disk = copy.deepcopy(before)
        failing, counter = refusing(disk, number, code, forever=forever)
        warned, failed = [], None
        try:
            commit(store(RUN, failing, warn=warned.append), step, "new")
        except CheckpointError as error:
            failed = error
        if next(counter) <= number:
            break
        outcomes.append((failed is None, bool(warned)))
        if failed is not None:
            what = re.escape(f"{RUN}/checkpoint-{step} could not be saved ({os.strerror(code)})")
            assert re.fullmatch(what if forever else f"{what}; {ROOM}", str(failed))
        if failed is not None and not forever:
            assert names_in(disk) == THERE
            assert disk.read(RUN / "checkpoint-2" / "weights.bin") == files_of(2)["weights.bin"]
        # The disk is mended, and the run started again.
        again = store(RUN, disk)
        again.recover()
        newest = again.newest_valid()
        assert newest.skipped == ()
        assert newest.committed.manifest.step in ({step} if failed is None else {2, step})
        assert all(verify(each.place, disk) for each in again.found())
        assert not [name for name in names_in(disk) if name.startswith(".") or "before" in name]
        commit(again, 4)
        assert names_in(disk) == {f"checkpoint-{newest.committed.manifest.step}", "checkpoint-4", INDEX}
    assert outcomes.count((False, False)) > 30
    assert outcomes.count((True, True)) > 10
    # What is committed stays committed.
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome[0])


FAILURES = {
    "the system's": OSError(errno.ENOSPC, "No space left on device"),
    "safetensors'": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_writer_is_refused(tmp_path, failure):
    for step in (1, 2):
        commit(store(tmp_path), step)

    def half(checkpoint, directory):
        (directory / "weights.bin").write_bytes(b"x" * 1000)
        raise FAILURES[failure]

    with pytest.raises(CheckpointError, match=rf"No space left on device.*\); {ROOM}$") as error:
        store(tmp_path).commit(checkpoint(3), [("one", half)])
    assert "it needs at least 1,000 bytes" in str(error.value)
    assert names(tmp_path) == THERE
