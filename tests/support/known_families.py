"""The architectures that built-in targets cover, and how to compare a model before and after it is saved."""

import torch
import transformers

from smolora_core import CheckpointWriter, Targets, Task
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.plugins import PluginChoice, PluginManager, build
from tests.support.tiny import inputs

REGISTRY = PluginManager.create(PluginChoice(third_party=False)).registry
RECORDS = {name: found.component for found in REGISTRY.of_kind(Targets) for name in found.component.model_types}
KNOWN = [name for name in RECORDS if name in transformers.CONFIG_MAPPING]
TASK = Task(name="any", summary="", implementation="a:b", model_class="AutoModel", loss="any")
_WRITE = build(REGISTRY.resolve(CheckpointWriter, "adapter"))


def write_adapter(model, tokenizer, folder):
    folder.mkdir()
    _WRITE(Checkpoint(step=1, model=model, tokenizer=tokenizer, metrics={}, config={}), folder)


@torch.no_grad()
def outputs(model):
    return model.eval()(**inputs(model))[0]


def difference(found, expected):
    """The largest difference, relative to the largest output."""
    return ((found - expected).abs().max() / expected.abs().max()).item()
