"""What goes wrong in torch while a run trains, as an error of ours that says when, and what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from smolora_core.errors import TrainingError
from smolora_core.plugins.loading import describe
from smolora_core.training.loaders import of_a_loader
from smolora_core.training.oom import is_out_of_memory


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
        hint = "set training.extra.dataloader_num_workers to 0" if of_a_loader(error) else ""
        raise TrainingError(f"training failed after step {step()} ({describe(error)})", hint=hint) from error
