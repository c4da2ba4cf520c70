"""An adapted model, as a run makes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from smolora_core import LoRAConfig, Task
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.targets import choose_targets
from smolora_core.plugins import PluginChoice, PluginManager


@pytest.fixture
def adapt() -> Callable[..., Any]:
    """Attach an adapter that changes something to a saved model."""

    def adapt(folder: Path, targets: Any = "auto", seed: int = 1, **config: Any) -> Any:
        manager = PluginManager.create(PluginChoice(third_party=False))
        task = manager.registry.resolve(Task, "causal-lm").component
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        choice = choose_targets(targets, base.config.model_type, adaptable_modules(base), manager.registry)
        adapted = attach(base, LoRAConfig(**config), choice, task, str(folder), seed)
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        adapted.model.eval()
        return adapted

    return adapt
