"""Stop a run whose numbers have gone wrong, before they reach the adapter; name what does not learn."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from smolora_core.checkpoints.rng import restore
from smolora_core.data.workers import is_worker_death
from smolora_core.errors import TrainingError
from smolora_core.plugins.loading import describe
from smolora_core.training.oom import is_out_of_memory

_NAMED = 3
_SKIPPED = 3
_ROWS = 16


def skip_or_stop(what: str, value: float, step: int, skipped: int, rows: Callable[[], list[int] | None], saved_at: int) -> str:
    """Say that a step is skipped, or stop the run.

    Args:
        what: is not finite.
        value: of it.
        step: that would be taken.
        skipped: steps in a row just before it.
        rows: looks up which rows it is made of; None if they are streamed.
        saved_at: the step of the last checkpoint; below 1 if there is none.

    Raises:
        TrainingError: it is the first step of all, or there were three in a row before it.
    """
    if step == 1:
        raise TrainingError(f"{what} is {value} at step 1", hint="set model.dtype to float32; this step updated nothing")
    if skipped < _SKIPPED:
        return f"{what} is {value} at step {step}: this step is skipped and updates nothing"
    numbers = rows()
    named = "" if numbers is None else f", with training rows {_listed(numbers)}"
    kept = f"the checkpoint of step {saved_at} is kept" if saved_at > 0 else "there is no checkpoint yet"
    raise TrainingError(
        f"{what} is {value} at step {step}, after {skipped} skipped steps in a row{named}",
        hint=f"lower training.learning_rate, set model.dtype to float32, or look at these rows; {kept}"
        if named
        else f"lower training.learning_rate, or set model.dtype to float32; {kept}",
    )


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _ROWS} more" if len(numbers) > _ROWS else ""
    return ", ".join(map(str, numbers[:_ROWS])) + more


def strange_start(loss: float, weight: float) -> str | None:
    """Say what is strange about the first step's loss."""
    if weight == 0:
        return "nothing in the first step is trained: no label is left, or every row weighs 0"
    if loss == 0:
        return "the loss is 0 at step 1: the rows have nothing to teach, or the loss does not look at them"
    return None


class LearningGuard(TrainerCallback):
    """After a few steps, names the trained tensors that had no gradient, or have not moved.

    The first step alone says little: an adapter's second factor begins at 0, so its first one has no gradient yet.
    """

    def __init__(self, warn: Callable[[str], object], steps: int = 3) -> None:
        """Choose after how many optimizer steps to look.

        Args:
            warn: told what does not learn.
            steps: of a shorter run, all but the first decide.
        """
        self._warn, self._steps = warn, steps
        self._before: dict[str, Tensor] = {}
        self._with_gradient: set[str] = set()
        self._taken = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Keep the tensors as they begin, here or after a resume; a run that was looked at before is not looked at again."""
        if state.global_step < self._steps:
            self._before = {name: each.detach().clone() for name, each in _trained(model)}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Note which tensors have a gradient; a step without any is one that is skipped."""
        if not self._before:
            return
        self._taken += any(each.grad is not None for _, each in _trained(model))
        for name, each in _trained(model):
            if name not in self._with_gradient and each.grad is not None and bool(each.grad.any()):
                self._with_gradient.add(name)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """Look once."""
        if self._before and self._taken > 1 and (self._taken >= self._steps or state.global_step >= state.max_steps):
            still = [name for name, each in _trained(model) if torch.equal(each.detach(), self._before[name])]
            without = [name for name in self._before if name not in self._with_gradient]
            for names, what in ((without, "no gradient"), ([name for name in still if name not in without], "not moved")):
                if names:
                    more_of_them = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                    verb = "have had" if what == "no gradient" else "have"
                    self._warn(
                        f"{len(names)} of {len(self._before)} trained tensors {verb} {what} in {self._taken} steps: "
                        f"{', '.join(names[:_NAMED])}{more_of_them}"
                    )
            self._before = {}


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, each) for name, each in model.named_parameters() if each.requires_grad)


def rows_of_batches(loader: Any, epoch: int, rng: Mapping[str, Tensor], first: int, count: int) -> list[int] | None:
    """Draw an epoch's order again, and look up the numbers of the rows of some micro-batches.

    The random numbers' state is another one afterwards.

    Args:
        loader: of training rows, as accelerate has prepared it.
        epoch: that the order is of.
        rng: as that epoch began.
        first: of the micro-batches.
        count: of them.

    Returns:
        None for rows that are streamed, which have no numbers.
    """
    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        return None
    numbers: Any = torch.utils.data.DataLoader(
        range(len(loader.dataset)),  # type: ignore[arg-type]
        batch_sampler=loader.batch_sampler,
        collate_fn=list,
    )
    loader.set_epoch(epoch)
    restore(rng)
    return [number for batch in islice(numbers, first, first + count) for number in batch]


@contextmanager
def failing_at(step: Callable[[], int]) -> Iterator[None]:
    """Name the step that torch fails in; what a plugin has raised stays as it is, and so does running out of memory.

    Raises:
        TrainingError: in place of a RuntimeError, or of what breaks off when a process that loads batches dies.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if getattr(error, "__notes__", ()) or is_out_of_memory(error):
            raise
        hint = "set training.extra.dataloader_num_workers to 0" if is_worker_death(error) else ""
        raise TrainingError(f"training failed after step {step()} ({describe(error)})", hint=hint) from error
