"""Recover from running out of memory: compute the micro-batch in parts, whose sums and weights add up to the same step."""

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from smolora_core.batches.padding import count_rows, split
from smolora_core.errors import TrainingError, first_line
from smolora_core.training.objective import Measured

# CUDA and MPS, the CPU allocator, and the CPU allocator on Windows.
_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")

_CPU = torch.device("cpu")

Work = Callable[[Mapping[str, Any]], Measured]


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error or one of its causes reports that a device or the host ran out of memory."""
    return _origin(error) is not None


def _origin(error: BaseException | None) -> Exception | None:
    if error is None or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return error
    if isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS):
        return error
    return _origin(error.__cause__)


@attrs.define
class Recovery:
    """Computes micro-batches whole if they fit in memory, else in halves, recursively.

    A size that once did not fit is not tried again.

    Attributes:
        free_memory: lets memory strategies free memory; returns whether the same batch may be tried again.
        emit: receives an event each time memory runs out.
        remedies: what the user can do if not even one row fits.
        device: the device that computes, whose random numbers a failed attempt must not use up.
    """

    free_memory: Callable[[BaseException], bool] = lambda error: False
    emit: Callable[..., None] = lambda kind, **values: None
    remedies: str = "lower data.max_seq_length"
    device: torch.device = _CPU
    _largest: float = math.inf
    _warned: bool = False

    def fits(self, size: int) -> bool:
        """Whether a micro-batch of that many tokens, padding included, may fit in memory."""
        return size <= self._largest

    def measure(self, batch: Mapping[str, Any], work: Work, when: str, step: int, failure: Exception | None = None) -> Measured:
        """Compute a micro-batch in parts, unless memory can be freed for all of it, or it has not been tried yet.

        Args:
            batch: the micro-batch.
            work: computes it or a part of it, and has no side effects if it fails.
            when: what messages call the step.
            step: the number of the step.
            failure: the error of an attempt to compute all of it.

        Raises:
            TrainingError: a single row does not fit.
        """
        rows = count_rows(batch)
        if failure is not None or rows == 1 or self.fits(batch["input_ids"].numel()):
            done = failure or _attempt(work, batch, self.device)
            if isinstance(done, Exception) and self.free_memory(done):
                self._report(step, rows, rows, done)
                done = _attempt(work, batch, self.device)
            if isinstance(done, Measured):
                return done
            if rows == 1:
                raise TrainingError(f"out of memory {when} with a micro-batch of one row", hint=self.remedies) from done
            self._report(step, rows, rows - rows // 2, done)
            if not self._warned:
                self._warned = True
                text = f"out of memory {when} with a micro-batch of {rows} rows; splitting it and later ones of its size"
                self.emit("warning", text=f"{text}, which does not change the effective batch")
            self._largest = min(self._largest, max(map(_size, split(batch))))
        one, other = (self.measure(part, work, when, step) for part in split(batch))
        return _join(one, other, rows // 2)

    def _report(self, step: int, rows: int, then: int, error: Exception) -> None:
        self.emit("out_of_memory", step=step, rows=rows, rows_after=then, error=first_line(error))


def _size(batch: Mapping[str, Any]) -> int:
    return int(batch["input_ids"].numel())


def _attempt(work: Work, batch: Mapping[str, Any], device: torch.device) -> Measured | Exception:
    """Call `work`; if memory runs out, return the error and free what was allocated."""
    rng = rng_states(device)
    try:
        return work(batch)
    except Exception as error:
        return release(error, rng)


def release(error: Exception, rng: Mapping[str, Tensor]) -> Exception:
    """Return the out-of-memory error behind an error, after freeing what it holds and restoring torch's RNG states.

    Raises:
        Exception: the error itself, if it has another cause.
    """
    failure = _origin(error)
    if failure is None:
        raise error
    # Tracebacks keep the tensors of their frames alive.
    each: BaseException | None = error
    while each is not None:
        each.__traceback__, each = None, each.__cause__ or each.__context__
    gc.collect()
    set_rng_states(rng)
    return failure


def _join(one: Measured, other: Measured, rows: int) -> Measured:
    """Add the contributions of two parts, of which the first has `rows` rows."""
    observed = [each.observed for each in (one, other) if each.observed is not None]
    numbers = [each.rows + first for each, first in ((one, 0), (other, rows)) if each.rows is not None]
    return Measured(
        one.sum.detach().float() + other.sum.detach().float(),
        one.weight + other.weight,
        torch.cat(observed) if observed else None,
        torch.cat(numbers) if numbers else None,
    )


@contextmanager
def isolated_gradients(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Accumulate the block's gradients only once it has succeeded: a failure leaves earlier ones unchanged."""
    before = [(each, each.grad) for each in parameters]
    for each, _ in before:
        each.grad = None
    try:
        yield
    except BaseException:
        for each, gradient in before:
            each.grad = gradient
        raise
    both = [(gradient, each.grad) for each, gradient in before if gradient is not None and each.grad is not None]
    if both:
        torch._foreach_add_([gradient for gradient, _ in both], [new for _, new in both])
    for each, gradient in before:
        if gradient is not None:
            each.grad = gradient


def rng_states(device: torch.device) -> Mapping[str, Tensor]:
    """Copy torch's RNG states by device type: all that a model uses."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def set_rng_states(states: Mapping[str, Tensor]) -> None:
    """Restore the states that `rng_states` copied."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name != "cpu":
            torch.get_device_module(name).set_rng_state(state)
