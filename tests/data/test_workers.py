"""Work in several processes: order, errors, and processes that die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from smolora_core.data.workers import in_order
from smolora_core.errors import DatasetError, Problem


class Unportable(Exception):
    """An exception that pickle cannot make anew."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def double(number: int) -> int:
    if number == 7:
        raise DatasetError.of([Problem("is seven", where="rows.jsonl:7"), Problem("is odd")])
    if number == 13:
        error = Unportable("thirteen is", "unlucky")
        error.add_note("raised by plugin 'numbers'")
        raise error
    if number == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_work(processes: int) -> None:
    assert list(in_order(double, iter([5, 3, 1, 2, 4] * 5), processes)) == [10, 6, 2, 4, 8] * 5


@pytest.mark.parametrize("processes", [1, 3])
def test_an_error_comes_after_the_results_before_it_with_all_its_problems(processes: int) -> None:
    found: list[int] = []
    with pytest.raises(DatasetError) as caught:
        found.extend(in_order(double, iter([1, 2, 7, 3]), processes))
    assert [problem.where for problem in caught.value.problems] == ["rows.jsonl:7", ""]
    assert found == [2, 4]


def test_an_exception_that_cannot_travel_keeps_its_name_text_and_notes() -> None:
    with pytest.raises(RuntimeError, match="Unportable: thirteen is unlucky") as caught:
        list(in_order(double, iter([13]), 2))
    assert caught.value.__notes__ == ["raised by plugin 'numbers'"]


def test_no_more_work_is_taken_than_keeps_the_processes_busy() -> None:
    work = iter(range(100, 200))
    results = in_order(double, work, 2)
    next(results)
    assert next(work) <= 105
    results.close()


def test_an_error_of_taking_work_waits_for_the_work_before_it() -> None:
    def work() -> Iterator[int]:
        yield 1
        yield 7
        raise DatasetError("the file is torn")

    with pytest.raises(DatasetError, match="is seven"):
        list(in_order(double, work(), 2))


def wait_for_ever(number: int) -> int:
    time.sleep(600 if number else 0)
    return number


def test_nobody_waits_for_work_that_nobody_wants() -> None:
    start = time.monotonic()
    results = in_order(wait_for_ever, iter([0, 1, 1, 1]), 2)
    assert next(results) == 0
    results.close()
    assert time.monotonic() - start < 60


def test_processes_end_with_the_one_that_gave_them_work(tmp_path: Path) -> None:
    program = (
        "import os, time\n"
        "from smolora_core.data.workers import in_order\n"
        "def name_itself(number):\n"
        "    open(f'{os.getpid()}.pid', 'w').close()\n"
        "    time.sleep(number)\n"
        "list(in_order(name_itself, iter([600, 600]), 2))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    while len(list(tmp_path.glob("*.pid"))) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    workers = [psutil.Process(int(file.stem)) for file in tmp_path.glob("*.pid") if psutil.pid_exists(int(file.stem))]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_a_process_that_is_killed_is_an_error_and_no_silence() -> None:
    with pytest.raises(DatasetError) as caught:
        list(in_order(double, iter([1, 17, 2]), 2))
    assert str(caught.value) == (
        "a data worker process died unexpectedly; it may have run out of memory: set data.num_proc to 1"
    )
