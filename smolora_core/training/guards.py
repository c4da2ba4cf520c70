"""Watch training for what can go wrong, and report it by step and row.

Steps whose numbers are not finite are skipped or end the run, and errors raised inside torch get the step at which they
happened.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from smolora_core.data.workers import is_worker_death
from smolora_core.errors import TrainingError
from smolora_core.plugins.loading import describe
from smolora_core.training.oom import is_out_of_memory

_MAX_SKIPPED = 3
_MAX_ROWS = 16
_SIGNAL_SECONDS = 0.5


def skip_or_stop(what: str, value: float, step: int, skipped: int, rows: Callable[[], list[int]] | None, saved_at: int) -> str:
    """Return a warning that a step is skipped because a value is not finite, or stop the run.

    `skipped` is the number of steps in a row skipped just before, `saved_at` the step of the last checkpoint, below 1 if there
    is none. `rows` looks up the step's training rows; it is None if they are streamed.

    Raises:
        TrainingError: it is the first step, or three steps in a row were skipped before it.
    """
    if step == 1:
        raise TrainingError(f"{what} is {value} at step 1", hint="set model.dtype to float32; no weights were updated")
    if skipped < _MAX_SKIPPED:
        return f"{what} is {value} at step {step}; skipping this step"
    kept = f"the checkpoint of step {saved_at} is kept" if saved_at > 0 else "there is no checkpoint yet"
    after = f"{what} is {value} at step {step}, after skipping {skipped} steps in a row"
    if rows is None:
        raise TrainingError(after, hint=f"lower training.learning_rate, or set model.dtype to float32; {kept}")
    numbers = rows()
    more = f" and {len(numbers) - _MAX_ROWS} more" if len(numbers) > _MAX_ROWS else ""
    listed = ", ".join(map(str, numbers[:_MAX_ROWS])) + more
    hint = f"lower training.learning_rate, set model.dtype to float32, or inspect these rows; {kept}"
    raise TrainingError(f"{after}, on training rows {listed}", hint=hint)


def first_loss_warning(loss: float, weight: float) -> str | None:
    """Return a warning if the first step's loss is suspicious."""
    if weight == 0:
        return "the first step has nothing to learn from: every label is masked, or every row has weight 0"
    if loss == 0:
        return "the loss is 0 at step 1: the rows carry no training signal, or the loss ignores them"
    return None


@contextmanager
def failing_at(step: Callable[[], int]) -> Iterator[None]:
    """Name the step at which torch fails; errors of plugins and out-of-memory errors pass unchanged.

    Raises:
        TrainingError: in place of a RuntimeError, or of the error that a dying DataLoader worker causes.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if getattr(error, "__notes__", ()) or is_out_of_memory(error):
            raise
        if not isinstance(error, RuntimeError):
            # A dying worker's pipe may break before its signal arrives, whose handler raises too: let it do so here.
            with suppress(RuntimeError):
                time.sleep(_SIGNAL_SECONDS)
        hint = "set training.extra.dataloader_num_workers to 0" if is_worker_death(error) else ""
        raise TrainingError(f"training failed after step {step()} ({describe(error)})", hint=hint) from error
