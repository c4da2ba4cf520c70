"""Where the time goes."""

import cProfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["profile_code"]


@contextmanager
def profile_code(output_file: str | Path) -> Iterator[None]:
    """Profile a block of code and write what `python -m pstats` reads, also when the block raises.

    Example:
        with profile_code("profile.pstats"):
            lora.train()
    """
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(str(output_file))
