"""What a run is to those who take part in it, and how it ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch

from smolora_core.config import RunConfig
from smolora_core.config.secrets import Mask
from smolora_core.plugins import PluginManager


@attrs.frozen
class Run:
    """What hooks and memory strategies see of a run.

    Attributes:
        config: the values.
        folder: where everything is written.
        device: where it computes.
        plugins: every plugin and component.
        emit: writes an event and shows it: `run.emit("note", text="...")`.
        mask: takes secrets out of text, lists and mappings.
        leads: whether this process is the one of its run that writes; alone, it is.
        resumes: whether it goes on from a checkpoint.
    """

    config: RunConfig
    folder: Path
    device: torch.device
    plugins: PluginManager
    emit: Callable[..., None]
    mask: Mask = attrs.field(factory=Mask)
    leads: bool = True
    resumes: bool = False

    def warn(self, text: str) -> None:
        """Write a warning and show it."""
        self.emit("warning", text=text)


@attrs.frozen(kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `finished`, `failed` or `interrupted`.
        steps: optimizer steps taken.
        metrics: the last loss, and the evaluation before and after: its loss and what the task measures.
        adapter: the folder of the final adapter.
        model: the trained `PeftModel`.
        tokenizer: of the base model.
        error: what ended a run that did not finish.
    """

    status: str
    steps: int = 0
    metrics: dict[str, float] = attrs.field(factory=dict)
    adapter: Path | None = None
    model: Any = None
    tokenizer: Any = None
    error: BaseException | None = None
