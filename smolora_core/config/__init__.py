"""A run's config: its sections, how it is read, and where each value came from."""

from smolora_core.config.convert import convert
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
    "convert",
    "load_config",
    "parse_flags",
    "resolve",
]
