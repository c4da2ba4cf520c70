"""Where to compute and in which number format: asked of the machine, not guessed."""

import time

import attrs
import torch

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
