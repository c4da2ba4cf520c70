"""Whether a model learned anything: a comparison with a constant answer, and a warning when it overfits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smolora_core import RunContext, hookimpl

if TYPE_CHECKING:
    from smolora_plugins.baseline.callback import Baseline


@hookimpl
def smolora_callbacks(run: RunContext) -> "Iterator[Baseline]":
    """Watch the evaluations of a run, in its first process."""
    from smolora_plugins.baseline.callback import Baseline

    if run.leads and run.config.data.eval is not None:
        yield Baseline(run)
