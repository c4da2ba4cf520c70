"""How much memory a device has left, within the limits that a container sets."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch


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
