"""SmoLoRA: LoRA fine-tuning of small language models, with a plugin for everything one may want to decide differently.

In three lines:

    from smolora_core import SmoLoRA

    lora = SmoLoRA("./models/tiny", "reviews.jsonl", output_dir="runs/reviews")
    lora.train()
    print(lora.generate("The film was"))

A custom loss is a formula, a custom preprocessor a function; both can be passed in, kept in a file, or shipped as a package:

    import torch.nn.functional as F

    def focal(logits, targets):  # logits [n, V], targets [n] -> [n]
        nll = F.cross_entropy(logits, targets, reduction="none")
        return (1 - (-nll).exp()) ** 2 * nll

    SmoLoRA("./models/tiny", "reviews.jsonl", loss=focal).train()

Importing this package imports no torch: names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smolora_core.components import CheckpointWriter as CheckpointWriter
    from smolora_core.components import Drop as Drop
    from smolora_core.components import Loss as Loss
    from smolora_core.components import MemoryStrategy as MemoryStrategy
    from smolora_core.components import Preprocessor as Preprocessor
    from smolora_core.components import Targets as Targets
    from smolora_core.components import Task as Task
    from smolora_core.config import DebugConfig as DebugConfig
    from smolora_core.config import LoRAConfig as LoRAConfig
    from smolora_core.errors import CheckpointError as CheckpointError
    from smolora_core.errors import ConfigError as ConfigError
    from smolora_core.errors import DatasetError as DatasetError
    from smolora_core.errors import ModelLoadError as ModelLoadError
    from smolora_core.errors import PluginError as PluginError
    from smolora_core.errors import Problem as Problem
    from smolora_core.errors import SmoLoRAError as SmoLoRAError
    from smolora_core.errors import TrainingError as TrainingError
    from smolora_core.hookspecs import hookimpl as hookimpl
    from smolora_core.library.checkpoints import CheckpointManager as CheckpointManager
    from smolora_core.library.datasets import DatasetHandler as DatasetHandler
    from smolora_core.library.datasets import prepare_dataset as prepare_dataset
    from smolora_core.library.losses import WeightedMSELoss as WeightedMSELoss
    from smolora_core.library.smolora import SmoLoRA as SmoLoRA
    from smolora_core.library.smolora import TrainingConfig as TrainingConfig
    from smolora_core.library.smolora import load as load
    from smolora_core.library.smolora import train as train
    from smolora_core.library.validation import validate_inputs as validate_inputs
    from smolora_core.training.profiling import profile_code as profile_code

_HOMES = {
    "library.smolora": ("SmoLoRA", "TrainingConfig", "load", "train"),
    "library.checkpoints": ("CheckpointManager",),
    "components": ("CheckpointWriter", "Drop", "Loss", "MemoryStrategy", "Preprocessor", "Targets", "Task"),
    "config": ("DebugConfig", "LoRAConfig"),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "DatasetError",
        "ModelLoadError",
        "PluginError",
        "Problem",
        "SmoLoRAError",
        "TrainingError",
    ),
    "library.datasets": ("DatasetHandler", "prepare_dataset"),
    "hookspecs": ("hookimpl",),
    "library.losses": ("WeightedMSELoss",),
    "training.profiling": ("profile_code",),
    "library.validation": ("validate_inputs",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("smolora")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
