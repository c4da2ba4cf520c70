"""Stop a run on a signal without losing work.

The first signal stops it once the current optimizer step is committed, the second one at once. DataLoader workers ignore
signals, so that the main process can still finish its step.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import attrs

from smolora_core.data.workers import exit_after

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""The signals that stop a run; Windows has no SIGHUP."""

# Wrappers such as `timeout` often signal both the process and its group, so it arrives twice.
_ECHO_SECONDS = 0.5


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run after the given step, which is committed."""

    def __init__(self, by: signal.Signals, step: int) -> None:
        self.by, self.step = by, step
        super().__init__(f"stopped by {by.name} after step {step}")

    @property
    def exit_code(self) -> int:
        """The exit code that shells report for the signal: 143, 130 or 129."""
        return 128 + self.by


class OutOfTime(Interrupted):
    """The time that the config allows ended after the given step, which is committed."""

    exit_code = 124
    """That of the command `timeout`."""

    def __init__(self, step: int) -> None:
        self.step = step
        KeyboardInterrupt.__init__(self, f"training.max_time is over after step {step}")


@attrs.define
class Caught:
    """The first signal that was caught, and when, on the monotonic clock."""

    first: signal.Signals | None = None
    when: float = 0.0


@attrs.define
class Stop:
    """The signal that all ranks agree to stop for, once each has told the others what it caught.

    Attributes:
        ranks: the number of ranks; a single one stops at once.
        caught: what this rank has caught.
    """

    ranks: int = 1
    caught: Caught = attrs.field(factory=Caught)
    _agreed: signal.Signals | None = None

    @property
    def by(self) -> signal.Signals | None:
        """The signal to stop for, if any."""
        return self.caught.first if self.ranks == 1 else self._agreed

    def flags(self) -> list[float]:
        """Return one number for each stopping signal, for the ranks to add up."""
        return [float(each == self.caught.first) for each in STOPPING]

    def agree(self, sums: Sequence[float]) -> signal.Signals | None:
        """Adopt a signal that any rank caught, and return the one to stop for."""
        self._agreed = self._agreed or next((each for each, flag in zip(STOPPING, sums, strict=True) if flag), None)
        return self.by


@contextmanager
def catch_signals() -> Iterator[Caught]:
    """Record the first signal instead of dying from it; the second one ends the process as usual.

    A repeat of the first signal within half a second is ignored. Existing handlers are called, too, and an exception of
    theirs is raised when the block ends. Ignored signals, such as SIGHUP under nohup, stay ignored. Outside the main thread,
    where handlers cannot be set, nothing is caught.
    """
    caught, raised = Caught(), list[BaseException]()
    handlers: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        existing = handlers[number]
        if caught.first == number and time.monotonic() - caught.when < _ECHO_SECONDS:
            return
        if caught.first is not None:
            restore()
            if callable(existing):
                existing(number, frame)
            os._exit(128 + number)
        caught.first, caught.when = signal.Signals(number), time.monotonic()
        if callable(existing) and existing is not signal.default_int_handler:
            try:
                existing(number, frame)
            except BaseException as error:
                raised.append(error)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in STOPPING}
        # None stands for a handler that was not set from Python, and could not be restored.
        handlers |= {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in handlers:
            signal.signal(number, handle)
    try:
        yield caught
    finally:
        restore()
    if raised:
        raise raised[0]


def ignore_signals(worker: int) -> None:
    """Leave signals to the main process: a DataLoader's `worker_init_fn`."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        exit_after(_wait_for_parents_signal, 0)


def _wait_for_parents_signal() -> None:
    """Wait for the SIGTERM that a failing main process sends before it waits for this worker to exit."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
