"""Work spread over processes, its results in the order of the work."""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any, TypeVar

from smolora_core.errors import DatasetError

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")

_AHEAD = 2
_MOST = 8
_WORTH_FORKING = 1 << 22
_WORTH_SPAWNING = 1 << 27
_function: Callable[[Any], Any] | None = None


def in_order(function: Callable[[_Batch], _Result], batches: Iterable[_Batch], processes: int) -> Iterator[_Result]:
    """Yield `function(batch)` for each batch, in order.

    No more batches are taken than keep the processes busy. Whatever the function raises, and whatever taking a batch raises,
    comes when the results before it have been given.

    Args:
        function: a pure one, which dill can pickle where processes are not forked.
        batches: taken in this process.
        processes: 1 works in this process.

    Raises:
        DatasetError: a process ended without a result, because memory ran out say.
    """
    if processes == 1:
        yield from map(function, batches)
        return
    with _pool(function, processes) as pool:
        pending: deque[Future[Any]] = deque()
        late: BaseException | None = None
        taking = iter(batches)
        done = False
        try:
            while late is None or pending:
                while late is None and len(pending) < _AHEAD * processes:
                    try:
                        pending.append(pool.submit(_apply, next(taking)))
                    except Exception as error:
                        late = error
                if pending:
                    yield _opened(pending.popleft().result())
            done = True
        except BrokenProcessPool as error:
            hint = "the system may have run out of memory: set data.num_proc to 1"
            raise DatasetError("a process that prepared rows ended without a word", hint=hint) from error
        finally:
            # Nobody waits for results any more, and a process may be at a row that takes for ever.
            for process in () if done else list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=done, cancel_futures=True)
        if not isinstance(late, StopIteration):
            assert late is not None
            raise late


def processes_for(size: int | None) -> int:
    """Choose how many processes pay for so many bytes of rows; None is an unknown number.

    On two cores two processes took longer than one below 1 MB, and were 1.3 times as fast from 5 MB on. Where processes cannot
    be forked, each first imports for seconds what the work needs.
    """
    if size is not None and size < (_WORTH_FORKING if sys.platform == "linux" else _WORTH_SPAWNING):
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, _MOST)


def exit_after(wait: Callable[[], object], status: int) -> None:
    """End this process once a function returns, which a thread of its own calls."""

    def end() -> None:
        wait()
        os._exit(status)

    threading.Thread(target=end, daemon=True).start()


def is_worker_death(error: BaseException) -> bool:
    """Whether an error says that a DataLoader's worker died: torch raises it wherever the main process happens to be."""
    return isinstance(error, ConnectionError | EOFError) or "DataLoader worker" in str(error)


def _pool(function: Callable[[Any], Any], processes: int) -> ProcessPoolExecutor:
    # A forked process has the function, and all modules, for nothing. Elsewhere than on Linux forking is not safe.
    if sys.platform == "linux":
        return ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _hold, (function,))
    pickled = import_module("dill").dumps(function)
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _hold_pickled, (pickled,))


def _hold(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    # Ctrl-C reaches every process of a terminal; the one that gives out the work ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One thread a process: the tokenizer's own would get in each other's way, and complain of the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None
    # With the process that gives out the work, however that one ended.
    exit_after(parent.join, 1)


def _hold_pickled(function: bytes) -> None:
    _hold(import_module("dill").loads(function))


def _apply(batch: Any) -> tuple[Any, BaseException | None]:
    assert _function is not None
    try:
        return _function(batch), None
    except Exception as error:
        return None, _portable(error)


def _portable(error: Exception) -> Exception:
    """Make sure that an exception survives the way to another process; not every class can be made anew from its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            replacement.add_note(note)
        return replacement
    return error


def _opened(answer: tuple[Any, BaseException | None]) -> Any:
    result, error = answer
    if error is not None:
        raise error
    return result
