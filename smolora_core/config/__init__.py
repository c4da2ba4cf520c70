"""A run's config: its sections, how it is read, and where each value came from."""

from smolora_core.config.conversion import convert
from smolora_core.config.document import parse_scalar
from smolora_core.config.load import Resolved, Setting, load_config, parse_flags, resolve
from smolora_core.config.sections import (
    CheckpointConfig,
    DataConfig,
    DebugConfig,
    LoRAConfig,
    ModelConfig,
    PluginConfig,
    RunConfig,
    Selection,
    TrainingSection,
)
from smolora_core.config.validators import above, at_least, each_above, fraction, probability

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "DebugConfig",
    "LoRAConfig",
    "ModelConfig",
    "PluginConfig",
    "Resolved",
    "RunConfig",
    "Selection",
    "Setting",
    "TrainingSection",
    "above",
    "at_least",
    "convert",
    "each_above",
    "fraction",
    "load_config",
    "parse_flags",
    "parse_scalar",
    "probability",
    "resolve",
]
