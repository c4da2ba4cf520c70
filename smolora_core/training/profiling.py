"""Where the time goes."""

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
    """What a function has cost by itself, without what it has called.

    Attributes:
        what: `file:line name`, or the name of what is not Python.
        calls: of it.
        seconds: in all of them.
        share: of all the time.
    """

    what: str
    calls: int
    seconds: float
    share: float


@contextmanager
def profile_code(output_file: str | Path) -> Iterator[None]:
    """Profile a block of code and write what was found, also when the block raises.

    Args:
        output_file: a name that ends in `.json` gets a trace of torch's operations, for `chrome://tracing` and Perfetto, which
            grows with every operation; any other what `python -m pstats` reads.

    Example:
        with profile_code("profile.pstats"):
            lora.train()
    """
    file = Path(output_file)
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {str(file)!r} does not exist", where="profile_code():")
    with _traced(file) if file.suffix == ".json" else _profiled(file):
        yield


@contextmanager
def _profiled(file: Path) -> Iterator[None]:
    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(str(file))


@contextmanager
def _traced(file: Path) -> Iterator[None]:
    from torch.profiler import profile

    tracer = profile()
    tracer.start()
    try:
        yield
    finally:
        tracer.stop()
        tracer.export_chrome_trace(str(file))


@contextmanager
def profile_run(file: Path, emit: Callable[..., None]) -> Iterator[None]:
    """Profile a run's training, and say what cost most."""
    # A link would be followed.
    file.unlink(missing_ok=True)
    with profile_code(file):
        yield
    emit("profile", file=str(file), costs=[attrs.asdict(cost) for cost in costs(file)])


def costs(file: Path, most: int = 10) -> list[Cost]:
    """Read what cost most from a profile, the dearest first."""
    stats: Any = pstats.Stats(str(file))
    dearest = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])[:most]
    return [
        Cost(_name(*function), calls, round(own, 4), round(own / (stats.total_tt or 1), 4))
        for function, (_, calls, own, *_) in dearest
    ]


def _name(file: str, line: int, name: str) -> str:
    if file == "~":
        return name.strip("<>").removeprefix("built-in method ").removeprefix("method ")
    return f"{'/'.join(Path(file).parts[-3:])}:{line} {name}"
