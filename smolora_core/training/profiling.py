"""Profile a block of code or a run, and find the functions that cost the most time."""

import cProfile
import pstats
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from smolora_core.errors import ConfigError


@attrs.frozen
class Cost:
    """A function's own time, without the functions it calls.

    Attributes:
        what: `file:line name`, or the name of a built-in.
        calls: the number of calls.
        seconds: the time of all calls.
        share: the share of the total time.
    """

    what: str
    calls: int
    seconds: float
    share: float


@contextmanager
def profile_code(output_file: str | Path) -> Iterator[None]:
    """Profile a block of code, and write the result even if the block raises.

    Args:
        output_file: a `.json` file gets a trace of every torch operation, for `chrome://tracing` and Perfetto; any other file
            gets statistics for `python -m pstats`.

    Raises:
        ConfigError: the folder of the file does not exist.

    Example:
        with profile_code("profile.pstats"):
            lora.train()
    """
    file = Path(output_file)
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(file)!r} does not exist", where="profile_code():")
    write: Callable[[str], object]
    if file.suffix == ".json":
        from torch.profiler import profile

        tracer = profile()
        start, stop, write = tracer.start, tracer.stop, tracer.export_chrome_trace
    else:
        profiler = cProfile.Profile()
        start, stop, write = profiler.enable, profiler.disable, profiler.dump_stats
    start()
    try:
        yield
    finally:
        stop()
        write(str(file))


@contextmanager
def profile_run(file: Path, emit: Callable[..., None]) -> Iterator[None]:
    """Profile a run's training, and emit the most expensive functions."""
    # Do not write through a symbolic link.
    file.unlink(missing_ok=True)
    with profile_code(file):
        yield
    emit("profile", file=str(file), costs=[attrs.asdict(cost) for cost in costs(file)])


def costs(file: Path, most: int = 10) -> list[Cost]:
    """Read a profile's most expensive functions, the most expensive first."""
    stats: Any = pstats.Stats(str(file))
    found = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])[:most]
    return [
        Cost(_name(*function), calls, round(own, 4), round(own / (stats.total_tt or 1), 4))
        for function, (_, calls, own, *_) in found
    ]


def _name(file: str, line: int, name: str) -> str:
    if file == "~":
        return name.strip("<>").removeprefix("built-in method ").removeprefix("method ")
    return f"{'/'.join(Path(file).parts[-3:])}:{line} {name}"
