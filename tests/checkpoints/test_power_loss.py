"""A loss of power at any operation, which keeps of what is not synced what it likes, loses nothing that was committed.

More of them: `python -m tests.checkpoints.test_power_loss 10000`.
"""

import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from smolora_core.checkpoints.manifest import verify
from smolora_core.checkpoints.retention import INDEX
from smolora_core.errors import CheckpointError
from tests.support.disks import checkpoint, files_of, store, writing
from tests.support.simulated_disk import MODES, PowerLossError, SimulatedDisk

RUN = Path("/run")
# Steps in the order they are saved, the final adapter's folder among them; a step that comes again is replaced.
SAVES = [(1, None), (2, None), (2, "adapter"), (3, None), (3, None), (4, None), (4, "adapter")]


def save_all(disk, acknowledged):
    at = store(RUN, disk)
    at.recover()
    for number, (step, name) in enumerate(SAVES):
        at.commit(checkpoint(step), [("one", writing(files_of(step, f"/{number}"), disk))], name)
        acknowledged.append(number)


def number_of(disk, place):
    """Read which of the saves a folder holds."""
    return int(disk.read(place / "weights.bin")[:3].partition(b"/")[2][:1])


def lose_power(random, mode, operations, *, syncs=True):
    """Save, end at one of the operations, perhaps again while recovering, in the end by a loss of power, and recover.

    Returns:
        Whether something torn is visible, and whether something acknowledged is lost.
    """
    disk = SimulatedDisk(random, mode, syncs=syncs, lives=random.randint(1, operations - 1))
    acknowledged: list[int] = []
    with pytest.raises(PowerLossError):
        save_all(disk, acknowledged)
    while random.random() < 0.5:
        ended = random.choice([disk.after_power_loss, disk.after_kill])
        disk = ended(random.randint(1, 60))
        try:
            store(RUN, disk).recover()
        except PowerLossError:
            continue
        break
    disk = disk.after_power_loss()
    return recovered(disk, acknowledged)


def recovered(disk, acknowledged):
    disk.make_folders(RUN)
    at = store(RUN, disk)
    torn = not all(is_whole(disk, place) for place in visible(disk))
    at.recover()
    torn = torn or not all(is_whole(disk, place) for place in visible(disk))
    held = {place.name: number_of(disk, place) for place in visible(disk) if is_whole(disk, place)}
    newest = at.newest_valid().committed
    steps = [number for number in acknowledged if SAVES[number][1] is None]
    adapters = [number for number in acknowledged if SAVES[number][1]]
    lost = bool(steps) and (newest is None or number_of(disk, newest.place) < steps[-1])
    # Retention leaves two.
    lost = lost or len(held.keys() - {"adapter"}) < min(2, len({SAVES[number][0] for number in steps}))
    lost = lost or (bool(adapters) and held.get("adapter", -1) < adapters[-1])
    at.commit(checkpoint(9), [("one", writing(files_of(9, "/9"), disk))])
    assert at.newest_valid().committed.manifest.step == 9
    left = {entry.path.name for entry in disk.entries(RUN)} - {INDEX, "adapter"}
    assert torn or lost or all(name.startswith("checkpoint-") for name in left), left
    return torn, lost


def visible(disk):
    return [entry.path for entry in disk.entries(RUN) if not entry.path.name.startswith(".") and entry.kind == "folder"]


def is_whole(disk, place):
    try:
        verify(place, disk)
    except CheckpointError:
        return False
    return True


def lose_often(count, mode, *, syncs=True, seed=0):
    disk = SimulatedDisk(Random(0), mode)
    save_all(disk, [])
    ends = Counter(lose_power(Random(f"{seed}-{each}"), mode, disk.operations, syncs=syncs) for each in range(count))
    return sum(ends[end] for end in ends if end[0]), sum(ends[end] for end in ends if end[1])


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_torn_or_lost(mode):
    assert lose_often(300, mode) == (0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_the_same_loses_much_that_is_not_synced(mode):
    """Or the simulation would prove nothing."""
    torn, lost = lose_often(60, mode, syncs=False)
    assert lost > 10
    assert torn > 10


if __name__ == "__main__":
    for each_mode in MODES:
        began = time.perf_counter()
        print(each_mode, "torn, lost:", lose_often(int(sys.argv[1]), each_mode), f"{time.perf_counter() - began:.0f} s")
