"""Signals that end a run: the first one after its optimizer step is committed, the second one at once."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import attrs

from smolora_core.data.workers import exit_after

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""The signals that stop a run; Windows has no SIGHUP."""

# What runs a process for somebody, as `timeout` does, often signals it and its group.
_ECHO = 0.5


class Interrupted(KeyboardInterrupt):
    """A signal has stopped a run whose state is committed.

    Attributes:
        by: the signal.
        step: of the checkpoint.
    """

    def __init__(self, by: signal.Signals, step: int) -> None:
        self.by, self.step = by, step
        super().__init__(f"stopped by {by.name} after step {step}")

    @property
    def exit_code(self) -> int:
        """What shells give a process that a signal has ended: 143, 130 or 129."""
        return 128 + self.by


@attrs.define
class Caught:
    """What has been caught.

    Attributes:
        first: the signal that came first.
        when: it came, on the monotonic clock.
    """

    first: signal.Signals | None = None
    when: float = 0.0


@contextmanager
def catch_signals() -> Iterator[Caught]:
    """Note the first signal instead of dying of it; the second one ends the process as it would have without us.

    The same signal again within half a second is taken for an echo of the first.

    Handlers that others have set are called as well, and what they raise is raised at the end. A signal that is ignored,
    as SIGHUP is under nohup, stays ignored. Only the main thread can set handlers; in another one nothing is caught.
    """
    caught, raised = Caught(), list[BaseException]()
    earlier: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        theirs = earlier[number]
        if caught.first == number and time.monotonic() - caught.when < _ECHO:
            return
        if caught.first is not None:
            restore()
            if callable(theirs):
                theirs(number, frame)
            os._exit(128 + number)
        caught.first, caught.when = signal.Signals(number), time.monotonic()
        if callable(theirs) and theirs is not signal.default_int_handler:
            try:
                theirs(number, frame)
            except BaseException as error:
                raised.append(error)

    if threading.current_thread() is threading.main_thread():
        # A handler that was not set from Python is None: it could not be put back.
        before = {number: signal.getsignal(number) for number in STOPPING}
        earlier |= {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in earlier:
            signal.signal(number, handle)
    try:
        yield caught
    finally:
        restore()
    if raised:
        raise raised[0]


def without_signals(start: Callable[[int], object] | None) -> Callable[[int], None]:
    """Make what starts a worker of a DataLoader: it leaves signals to the process that it works for."""
    return functools.partial(_start_worker, start)


def _start_worker(start: Callable[[int], object] | None, number: int) -> None:
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        exit_after(_wait_for_parents_signal, 0)
    if start is not None:
        start(number)


def _wait_for_parents_signal() -> None:
    """Wait until the process that is worked for says so: one that fails does when it exits, and waits until it has happened."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
