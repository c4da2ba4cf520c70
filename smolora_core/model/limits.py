"""What a model's shape allows of the data."""

from typing import Any

import attrs

from smolora_core.config import Resolved
from smolora_core.errors import ConfigError

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
