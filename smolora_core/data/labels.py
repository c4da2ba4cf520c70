"""What the first rows of a source show of their labels."""

from contextlib import suppress
from typing import Any

from smolora_core.config import DataConfig
from smolora_core.data.formats import label_kind
from smolora_core.data.sources import Reading, open_source, peek
from smolora_core.errors import SmoLoRAError


def look_at_labels(config: DataConfig, rows: Any = None) -> tuple[str, str]:
    """Say what rows are labelled with, and why, for the choice of a task.

    Args:
        config: names the source and its fields.
        rows: a dataset in memory, in place of `config.train`.

    Returns:
        As `label_kind`. What cannot be read shows nothing here; it is reported where it is read for good.
    """
    found: list[dict[str, Any]] = []
    with suppress(SmoLoRAError):
        source = open_source(config.train if rows is None else rows, reading=Reading.of(config))
        if source.kind != "hub":
            found = [located.row for located in peek(source, on_bad=lambda problem: None)]
    return label_kind(config, found)
