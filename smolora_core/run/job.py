"""A job: a fully resolved config, the components that it names, and the base model's own config."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs

from smolora_core.config import Resolved, RunConfig
from smolora_core.model.load import model_digest, read_config
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import Choices, choose_components, fill_in_choices
from smolora_core.run.check import Checked, peek_labels, within_positions


@attrs.frozen(kw_only=True)
class Job:
    """The inputs of a run, before it reads rows or weights.

    Attributes:
        resolved: the config with nothing left to infer, and the source of each value.
        plugins: the loaded plugins.
        rows: a dataset in memory, in place of `data.train`.
        folder: the run's folder.
        choices: the components that the config names.
        base_config: the base model's transformers config.
    """

    resolved: Resolved
    plugins: PluginManager
    rows: Any
    folder: Path
    choices: Choices
    base_config: Any

    @property
    def config(self) -> RunConfig:
        return self.resolved.config

    def where(self, key: str) -> str:
        """Return where the user set a key."""
        return self.resolved.where(key)

    @property
    def vocab_size(self) -> int | None:
        """The size of the base model's vocabulary; None if unknown."""
        return getattr(self.base_config.get_text_config(), "vocab_size", None)

    @cached_property
    def digests(self) -> dict[str, str | None]:
        """Digests of the base model, and of task and loss code that has no version, by config key."""
        digests = {"model.path": model_digest(self.config.model.path, self.base_config)}
        for chosen in (self.choices.task, self.choices.loss):
            if not chosen.origin.distribution:
                digests[chosen.component.noun] = chosen.code
        return digests


def resolve_job(checked: Checked) -> Job:
    """Read the base model's config and infer what the run's config leaves open.

    Raises:
        SmoLoRAError: the model cannot be read, or a component that depends on it cannot be chosen.
    """
    resolved, plugins = checked.resolved, checked.plugins
    base_config = read_config(resolved.config.model, resolved.where("model.path"))
    resolved = within_positions(resolved, getattr(base_config, "max_position_embeddings", None))
    choices = checked.choices
    if choices is None:
        look = partial(peek_labels, resolved.config.data, checked.rows)
        choices = choose_components(resolved, plugins.registry, base_config.architectures or (), look)
    assert choices is not None, "with known architectures a task is always chosen"
    return Job(
        resolved=fill_in_choices(resolved, choices),
        plugins=plugins,
        rows=checked.rows,
        folder=checked.folder,
        choices=choices,
        base_config=base_config,
    )
