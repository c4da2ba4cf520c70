"""Processes that load batches for a run."""

import functools
import os
import signal
import threading
from collections.abc import Callable

from smolora_core.training.signals import STOPPING


def of_a_loader(error: BaseException) -> bool:
    """Whether it tells that one of them has died: torch says so wherever the run is, unless it was being read from."""
    return isinstance(error, ConnectionError | EOFError) or "DataLoader worker" in str(error)


def without_signals(start: Callable[[int], object] | None) -> Callable[[int], None]:
    """Make what starts a worker of a DataLoader: it leaves signals to the process that it works for."""
    return functools.partial(_start_worker, start)


def _start_worker(start: Callable[[int], object] | None, number: int) -> None:
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_follow_parent, daemon=True).start()
    if start is not None:
        start(number)


def _follow_parent() -> None:
    """End when the process that is worked for says so: one that fails does when it exits, and waits until it has happened."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
