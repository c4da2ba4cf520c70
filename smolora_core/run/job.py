"""A config settled on the model that it names: lengths it has room for, and components with their options."""

from contextlib import suppress
from functools import partial
from typing import Any

import attrs

from smolora_core.config import DataConfig, Resolved
from smolora_core.data.formats import label_kind
from smolora_core.data.sources import Reading, open_source, peek
from smolora_core.errors import ConfigError, SmoLoRAError
from smolora_core.lora.options import targets_of
from smolora_core.model.header import is_folder, read_header
from smolora_core.model.load import read_config
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import Choices, choose_components, spell_out


@attrs.frozen
class Settled:
    """What a run is made from.

    Attributes:
        resolved: the config with nothing left to be inferred.
        choices: its components.
        base_config: the transformers config of the base model.
        vocab_size: of the model, or None where it does not say.
    """

    resolved: Resolved
    choices: Choices
    base_config: Any

    @property
    def vocab_size(self) -> int | None:
        return getattr(self.base_config.get_text_config(), "vocab_size", None)


def settle(resolved: Resolved, plugins: PluginManager, rows: Any = None) -> Settled:
    """Read what the model says of itself and choose the components.

    Args:
        resolved: the config and where its values stand.
        plugins: the loaded plugins.
        rows: a dataset in memory, in place of `data.train`.

    Raises:
        SmoLoRAError: the model cannot be read, or a component not be chosen.
    """
    where = resolved.where("model.path")
    if is_folder(resolved.config.model.path):
        header = read_header(resolved.config.model.path, where)
        if header.modules:
            # A name that fits nothing is refused before rows are prepared and weights are loaded.
            lora, registry = resolved.config.lora, plugins.registry
            targets_of(lora, header.model_type, header.modules, registry, resolved.where, tied=header.tied)
    base_config = read_config(resolved.config.model, where)
    resolved = within_positions(resolved, getattr(base_config, "max_position_embeddings", None))
    look = partial(look_at_labels, resolved.config.data, rows)
    choices = choose_components(resolved, plugins.registry, base_config.architectures or (), look)
    assert choices is not None
    return Settled(spell_out(resolved, choices), choices, base_config)


_KEY = "data.max_seq_length"


def within_positions(resolved: Resolved, positions: Any) -> Resolved:
    """Hold the sequence length to the positions that a model has.

    Args:
        resolved: the config; where the length is the default's, it is lowered to what the model has.
        positions: of the model, or None where its config does not say.

    Raises:
        ConfigError: the user asked for longer sequences.
    """
    data = resolved.config.data
    if not isinstance(positions, int) or data.max_seq_length <= positions:
        return resolved
    if _KEY in resolved.sources:
        raise ConfigError(
            f"{_KEY} {data.max_seq_length} is more than the {positions} positions of the model",
            where=resolved.where(_KEY),
            hint=f"set it to {positions} or less",
        )
    config = attrs.evolve(resolved.config, data=attrs.evolve(data, max_seq_length=positions))
    return attrs.evolve(resolved, config=config, sources={**resolved.sources, _KEY: "the model's positions"})


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
