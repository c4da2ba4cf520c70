"""Go on when memory has run out: the same micro-batch again in parts, whose sums and weights add up to the same step."""

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor

from smolora_core.batches.padding import count_rows, split
from smolora_core.errors import TrainingError
from smolora_core.training.objective import Measured

# Of CUDA and MPS, of the processor's allocator, and of what it says on Windows.
_TEXTS = ("out of memory", "can't allocate memory", "not enough memory")

Draws = Mapping[str, Tensor]
"""States of torch's random numbers, by type of device."""

Work = Callable[[Mapping[str, Any]], Measured]


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that memory has run out; whose memory it was does not matter."""
    return _origin(error) is not None


def _origin(error: BaseException | None) -> Exception | None:
    if error is None or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return error
    if isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS):
        return error
    return _origin(error.__cause__)


def out_of_memory(when: str, remedies: str) -> TrainingError:
    """Make the error that ends a run."""
    return TrainingError(f"out of memory {when}", hint=remedies)


@attrs.define
class Recovery:
    """Computes micro-batches whole where memory allows it, and else in halves, and halves of these.

    What once was too large is not tried again.

    Attributes:
        ask: tells the memory strategies; whether the same may be tried again.
        emit: told of every time that memory has run out.
        remedies: what to do where not even one row fits.
    """

    ask: Callable[[BaseException], bool] = lambda error: False
    emit: Callable[..., None] = lambda kind, **values: None
    remedies: str = "lower data.max_seq_length"
    _most: float = math.inf
    _said: bool = False

    def measure(self, batch: Mapping[str, Any], work: Work, when: str, step: int, *, splits: bool = True) -> Measured:
        """Compute a micro-batch.

        Args:
            batch: as it was collated.
            work: what to do with it, or with a part of it; it leaves nothing behind where it fails.
            when: it is done, for a person.
            step: likewise.
            splits: whether others do not wait for this process to do it once, and whole.

        Raises:
            TrainingError: one row alone does not fit, or a batch that must not be split.
        """
        rows = count_rows(batch)
        if rows == 1 or not splits or _size(batch) <= self._most:
            done = _attempt(work, batch)
            if isinstance(done, Exception) and splits and self.ask(done):
                self._tell(step, rows, rows, done)
                done = _attempt(work, batch)
            if isinstance(done, Measured):
                return done
            if rows == 1 or not splits:
                what = "one row" if rows == 1 else f"{rows} rows"
                raise out_of_memory(f"{when} with a micro-batch of {what}", self.remedies) from done
            self._tell(step, rows, rows - rows // 2, done)
            if not self._said:
                self._said = True
                text = f"out of memory {when} with a micro-batch of {rows} rows: it is split, as are later ones of its size"
                self.emit("warning", text=f"{text}; the effective batch stays as it is")
            self._most = min(self._most, max(map(_size, split(batch))))
        one, other = (self.measure(part, work, when, step) for part in split(batch))
        return _joined(one, other, rows // 2)

    def _tell(self, step: int, rows: int, then: int, error: Exception) -> None:
        self.emit("out_of_memory", step=step, rows=rows, rows_after=then, error=str(error).strip().partition("\n")[0])


def _size(batch: Mapping[str, Any]) -> int:
    return int(batch["input_ids"].numel())


def _attempt(work: Work, batch: Mapping[str, Any]) -> Measured | Exception:
    """Work; if memory runs out, give the error back, and free what the work had made."""
    before = draws(batch["input_ids"].device)
    try:
        return work(batch)
    except Exception as error:
        failure = _origin(error)
        if failure is None:
            raise
        each: BaseException | None = error
    # The frames that an error has come through keep their tensors alive.
    while each is not None:
        each.__traceback__, each = None, each.__cause__ or each.__context__
    gc.collect()
    redraw(before)
    return failure


def _joined(one: Measured, other: Measured, rows: int) -> Measured:
    """Add what two parts contribute, the first of which has so many rows."""
    observed = [each.observed for each in (one, other) if each.observed is not None]
    numbers = [each.rows + first for each, first in ((one, 0), (other, rows)) if each.rows is not None]
    return Measured(
        one.sum.detach().float() + other.sum.detach().float(),
        one.weight + other.weight,
        torch.cat(observed) if observed else None,
        torch.cat(numbers) if numbers else None,
    )


@contextmanager
def gradients_apart(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Add new gradients to those that are there only when all are computed: a failure leaves them as they were."""
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


def draws(device: torch.device) -> Draws:
    """Copy the states that a model draws by: microseconds, where `checkpoints.rng.capture` takes a third of a millisecond."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states


def redraw(states: Draws) -> None:
    """Set these states again."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name != "cpu":
            torch.get_device_module(name).set_rng_state(state)
