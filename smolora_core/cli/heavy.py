"""Import torch and what stands on it without looking for garbage meanwhile."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Hold the garbage collector off while modules are imported, and keep what they made out of its later rounds.

    Imports make hundreds of thousands of objects that all stay. A full collection walks through every one, to find nothing:
    that takes a fifth of the start-up, and each full collection in training takes it again. Only for a process that is ours.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
