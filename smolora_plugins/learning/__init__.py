"""Whether every trainable tensor learns: a warning after the first steps if some had no gradient or have not changed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smolora_core import RunContext, hookimpl

if TYPE_CHECKING:
    from smolora_plugins.learning.callback import LearningGuard


@hookimpl
def smolora_callbacks(run: RunContext) -> "Iterator[LearningGuard]":
    """Watch the first steps of a run."""
    from smolora_plugins.learning.callback import LearningGuard

    yield LearningGuard(run.warn)
