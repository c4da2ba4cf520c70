"""In every architecture that a record speaks for, what is saved is what was trained, and merging changes no output."""

import peft
import pytest
import torch

from smolora_core import CheckpointWriter, LoRAConfig, Task
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.merge import merge_and_save
from smolora_core.lora.targets import choose_targets
from smolora_core.plugins import PluginChoice, PluginManager, build
from tests.builtin.targets.test_families import KNOWN, RECORDS
from tests.support.models import save_tokenizer
from tests.support.tiny import inputs, tiny

REGISTRY = PluginManager.create(PluginChoice(third_party=False)).registry
WRITE = build(REGISTRY.resolve(CheckpointWriter, "adapter"))
TASK = Task(name="any", summary="", implementation="a:b", model_class="AutoModel", loss="any")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def write_adapter(model, tokenizer, folder):
    folder.mkdir()
    WRITE(Checkpoint(step=1, model=model, tokenizer=tokenizer, metrics={}, config={}), folder)


@torch.no_grad()
def outputs(model):
    return model.eval()(**inputs(model))[0]


def difference(found, expected):
    """The largest difference, relative to the largest output."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("model_type", KNOWN)
def test_saved_and_merged_it_says_the_same(model_type, tmp_path, monkeypatch, tokenizer):
    record = RECORDS[model_type]
    base = tiny(model_type, encoder=record.name in ("bert", "albert") or "encoders" in record.summary)
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    untrained = outputs(base)
    choice = choose_targets("auto", model_type, adaptable_modules(base), REGISTRY)
    model = attach(base, LoRAConfig(r=2, dropout=0.0), choice, TASK, base.name_or_path, seed=1).model
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    # What needs a gradient torch multiplies in another order.
    trained = outputs(model.requires_grad_(False))
    assert difference(trained, untrained) > 1e-3
    write_adapter(model, tokenizer, tmp_path / "adapter")
    merged = merge_and_save(model, tokenizer, tmp_path / "merged")
    assert torch.equal(outputs(model), trained)

    monkeypatch.chdir("/")
    plain = type(base)
    reloaded = peft.PeftModel.from_pretrained(plain.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    assert torch.equal(outputs(reloaded), trained)
    assert difference(outputs(plain.from_pretrained(merged)), trained) < 1e-5
