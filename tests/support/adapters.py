"""Adapters saved as a run saves them."""

import transformers

from smolora_core import LoRAConfig, Task
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.targets import choose_targets
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_plugins.checkpoints.adapter import write_adapter


def save(model, base, folder):
    folder.mkdir()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    write_adapter(Checkpoint(step=1, model=model, tokenizer=tokenizer, metrics={}, config={}), folder)
    return folder


def write_fresh(base, folder):
    """Save an untrained adapter of a Llama, and return the contents of its files by name."""
    manager = PluginManager.create(PluginChoice(third_party=False))
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    choice = choose_targets("all-linear", "llama", adaptable_modules(model), manager.registry)
    task = manager.registry.resolve(Task, "causal-lm").component
    save(attach(model, LoRAConfig(), choice, task, str(base), seed=1).model, base, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
