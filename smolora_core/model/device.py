"""The device and number format to compute in, the memory that is left there, and train/eval mode."""

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

_BENCHMARK_SECONDS = 0.05
_MIN_SPEEDUP = 1.15


@attrs.frozen
class Precision:
    """The number format of frozen weights; adapters are always float32.

    Attributes:
        dtype: the frozen weights' dtype.
        reason: why it was chosen, as the run reports it.
    """

    dtype: torch.dtype
    reason: str


def pick_device(wanted: str, where: str = "") -> torch.device:
    """Choose cuda, then mps, then cpu.

    Raises:
        ConfigError: the requested device is not available.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [name for name, is_present in present.items() if is_present]
    if wanted == "auto":
        return torch.device(available[0])
    if wanted not in available:
        raise ConfigError(f"no {wanted} device available", where=where, hint=f"available: {', '.join(available)}")
    return torch.device(wanted)


def choose_dtype(wanted: str, device: torch.device, hidden: int, inner: int) -> Precision:
    """Choose the faster of float32 and bfloat16 by timing products of the model's hidden and MLP widths for about 50 ms.

    Some processors compute bfloat16 in hardware and others emulate it, slower than float32; only a measurement can tell.
    """
    if wanted != "auto":
        return Precision(getattr(torch, wanted), "as configured")
    try:
        # Smaller products would measure the overhead, and the answer would change from run to run.
        shape = max(hidden, 512), max(inner, 1024)
        ratio = _matmul_seconds(torch.float32, device, *shape) / _matmul_seconds(torch.bfloat16, device, *shape)
    except (TypeError, RuntimeError):
        return Precision(torch.float32, f"{device.type} does not support bfloat16")
    if ratio >= _MIN_SPEEDUP:
        return Precision(torch.bfloat16, f"measured {ratio:.1f}x as fast as float32")
    return Precision(torch.float32, f"bfloat16 measured only {ratio:.1f}x as fast")


def _matmul_seconds(dtype: torch.dtype, device: torch.device, hidden: int, inner: int) -> float:
    """Return the best time of multiplying 512 tokens by an MLP weight."""
    tokens = torch.ones(512, hidden, dtype=dtype, device=device)
    weight = torch.ones(inner, hidden, dtype=dtype, device=device)
    best, end = float("inf"), time.perf_counter() + _BENCHMARK_SECONDS / 2
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        torch.nn.functional.linear(tokens, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        # The first round warms up caches and kernels.
        best = min(best, time.perf_counter() - start) if rounds else best
        rounds += 1
    return best


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the bytes that a new process could allocate on a device; None where the system does not report them.

    `root` is the folder that contains /proc and /sys.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if not (root / "proc/meminfo").exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    available = _read_field(root / "proc/meminfo", "MemAvailable:")
    limits = [*_cgroup_headroom(root), *([available] if available else [])]
    # The new process replaces this one, whose memory is free by then.
    own = _read_field(root / "proc/self/status", "RssAnon:") or 0
    return min(limits) + own if limits else None


def resident_memory() -> int:
    """Return the bytes of this process that are in memory, or the peak where only that is known."""
    if now := _read_field(Path("/proc/self/status"), "VmRSS:"):
        return now
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 0


def reset_peak_memory() -> bool:
    """Reset this process's peak memory; return whether the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def peak_memory() -> int:
    """Return the most bytes of this process that were in memory since `reset_peak_memory`."""
    return _read_field(Path("/proc/self/status"), "VmHWM:") or 0


def _cgroup_headroom(root: Path) -> Iterator[int]:
    """Yield the bytes left in each of this process's control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html."""
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        unified = Path(next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), ""))
        for group in (unified, *unified.parents):
            yield from _headroom(root / "sys/fs/cgroup" / group, "memory.max", "memory.current", "inactive_file")
    yield from _headroom(root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _headroom(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    with suppress(OSError, ValueError):
        left = int((group / limit).read_text()) - int((group / usage).read_text())
        # The kernel drops cached files when memory runs short.
        yield left + (_read_field(group / "memory.stat", reclaimable) or 0)


def _read_field(file: Path, name: str) -> int | None:
    """Read a field such as `VmRSS: 300 kB` or `inactive_file 1024`, in bytes; None where it is missing."""
    with suppress(OSError):
        fields = (line.split() for line in file.read_text().splitlines())
        return next((int(field[1]) * (1024 if field[-1] == "kB" else 1) for field in fields if field[0] == name), None)
    return None


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a whole model in train or eval mode, and restore each layer's own mode afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training
