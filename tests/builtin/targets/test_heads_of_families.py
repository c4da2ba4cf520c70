"""In every architecture that can have a head, one is trained, saved with the adapter, found by plain PEFT, and merged."""

import os

import peft
import pytest
import torch
import transformers

from smolora_core import LoRAConfig, Task
from smolora_core.config import ModelConfig
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.merge import merge_and_save
from smolora_core.lora.targets import choose_targets
from smolora_core.model.load import load_base, read_config
from tests.support.known_families import KNOWN, RECORDS, REGISTRY, difference, outputs, write_adapter
from tests.support.tiny import tiny

TASKS = {name: REGISTRY.resolve(Task, name).component for name in ("sequence-classification", "token-classification")}


def fits(task, model_type):
    kind = transformers.CONFIG_MAPPING[model_type]
    return kind in getattr(transformers, TASKS[task].model_class)._model_mapping


# Of qwen3_5 the text is saved, as qwen3_5_text.
EVERY = [(task, each) for task in TASKS for each in KNOWN if each != "qwen3_5" and fits(task, each)]
# Either head of a model type shows what there is to see of it; SMOLORA_EVERY_HEAD takes both, for half a minute more.
ONE_EACH = {each: (task, each) for task, each in sorted(EVERY, key=lambda pair: (len(pair[0]) + len(pair[1])) % 2)}
PAIRS = EVERY if "SMOLORA_EVERY_HEAD" in os.environ else list(ONE_EACH.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize(("task", "model_type"), PAIRS)
def test_its_head_comes_back_and_is_merged(task, model_type, tmp_path, monkeypatch, tokenizer):
    record = RECORDS[model_type]
    base = tiny(model_type, encoder=record.name in ("bert", "albert") or "encoders" in record.summary)
    base.save_pretrained(tmp_path / "base")
    settings = ModelConfig(path=str(tmp_path / "base"), dtype="float32", device="cpu")
    loaded = load_base(settings, TASKS[task], torch.device("cpu"), read_config(settings), changes={"num_labels": 3})
    modules = {name: shape for name, shape in adaptable_modules(loaded.model).items() if name not in loaded.heads}
    choice, lora = choose_targets("auto", model_type, modules, REGISTRY), LoRAConfig(r=2, dropout=0.0)
    model = attach(loaded.model, lora, choice, TASKS[task], settings.path, seed=1, modules_to_save=loaded.heads).model
    untrained = outputs(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    trained = outputs(model.requires_grad_(False))
    assert trained.shape[-1] == 3
    assert difference(trained, untrained) > 1e-3
    write_adapter(model, tokenizer, tmp_path / "adapter")
    merged = merge_and_save(model, tokenizer, tmp_path / "merged")

    monkeypatch.chdir("/")
    plain = type(loaded.model)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "adapter")
    reloaded = peft.PeftModel.from_pretrained(plain.from_pretrained(tmp_path / "base", config=config), tmp_path / "adapter")
    assert torch.equal(outputs(reloaded), trained)
    assert difference(outputs(plain.from_pretrained(merged)), trained) < 1e-5
