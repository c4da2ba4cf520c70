"""Where to compute and in which number format: asked of the machine, not guessed."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import torch
from torch import nn

from smolora_core.errors import ConfigError

_BUDGET_SECONDS = 0.05
_WORTH_IT = 1.15


@attrs.frozen
class Precision:
    """The number format of frozen weights.

    Attributes:
        dtype: of the frozen weights; adapters are float32 always.
        reason: why, for a person.
    """

    dtype: torch.dtype
    reason: str


def pick_device(wanted: str, where: str = "") -> torch.device:
    """Choose cuda, then mps, then cpu.

    Raises:
        ConfigError: the device that was asked for is not there.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, here in present.items() if here))
    if not present[wanted]:
        here = ", ".join(name for name, there in present.items() if there)
        raise ConfigError(f"no {wanted} device here", where=where, hint=f"there is: {here}")
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device, hidden: int, inner: int) -> Precision:
    """Choose the fastest of float32 and bfloat16 by multiplying matrices of the model's shape for about 50 ms.

    Some processors compute bfloat16 in hardware and some emulate it, slower than float32; nothing but a measurement tells.

    Args:
        wanted: `auto` or a dtype's name.
        device: to measure on.
        hidden: width of the model.
        inner: width of its MLP.
    """
    if wanted != "auto":
        return Precision(getattr(torch, wanted), "as configured")
    try:
        # Of matrices smaller than this the overhead would be measured, and the answer would change from run to run.
        shape = max(hidden, 512), max(inner, 1024)
        ratio = _seconds(torch.float32, device, *shape) / _seconds(torch.bfloat16, device, *shape)
    except (TypeError, RuntimeError):
        return Precision(torch.float32, f"{device.type} has no bfloat16 here")
    if ratio >= _WORTH_IT:
        return Precision(torch.bfloat16, f"measured {ratio:.1f}x float32 here")
    return Precision(torch.float32, f"bfloat16 measured {ratio:.1f}x float32 here")


def _seconds(dtype: torch.dtype, device: torch.device, hidden: int, inner: int) -> float:
    """Best time of one product of 512 tokens with a weight of the model's MLP."""
    tokens = torch.ones(512, hidden, dtype=dtype, device=device)
    weight = torch.ones(inner, hidden, dtype=dtype, device=device)
    best, end = float("inf"), time.perf_counter() + _BUDGET_SECONDS / 2
    # The first rounds warm caches and kernels up; the best of the rest is the least disturbed one.
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)
        _finish(device)
        best = min(best, time.perf_counter() - start) if rounds else best
        rounds += 1
    return best


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Count the bytes that a new process could take on a device; None where nobody says.

    Args:
        device: that it computes on.
        root: where /proc and /sys are.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if not (root / "proc/meminfo").exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    # This process will be gone.
    own = _kilobytes(root / "proc/self/status", "RssAnon:") or 0
    left = [*_left_in_groups(root), *filter(None, [_kilobytes(root / "proc/meminfo", "MemAvailable:")])]
    return min(left) + own if left else None


def resident_memory() -> int:
    """Count the bytes of this process that are in memory; where only the most that were is known, those."""
    with suppress(OSError):
        if now := _kilobytes(Path("/proc/self/status"), "VmRSS:"):
            return now
    with suppress(ImportError):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
    return 0


def forget_peak() -> bool:
    """Begin to look for this process's peak anew, where that can be done."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def peak_memory() -> int:
    """Count the most bytes of this process that were in memory since `forget_peak`."""
    return _kilobytes(Path("/proc/self/status"), "VmHWM:") or 0


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what each control group that this process is in leaves it: https://docs.kernel.org/admin-guide/cgroup-v2.html."""
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        unified = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
        for group in (Path(unified), *Path(unified).parents):
            folder = root / "sys/fs/cgroup" / group
            with suppress(OSError, ValueError):
                left = int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
                yield left + _cached(folder / "memory.stat", "inactive_file")
    with suppress(OSError, ValueError):
        folder = root / "sys/fs/cgroup/memory"
        left = int((folder / "memory.limit_in_bytes").read_text()) - int((folder / "memory.usage_in_bytes").read_text())
        yield left + _cached(folder / "memory.stat", "total_inactive_file")


def _cached(stat: Path, name: str) -> int:
    """Files that are given up when memory is needed."""
    with suppress(OSError):
        return next((int(line.split()[1]) for line in stat.read_text().splitlines() if line.split()[0] == name), 0)
    return 0


def _kilobytes(file: Path, name: str) -> int | None:
    return next((1024 * int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name)), None)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put all of a model into one mode, and afterwards each layer back into its own."""
    before = [(each, each.training) for each in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for each, was in before:
            each.training = was
