"""In every architecture that a record speaks for, what is saved is what was trained, and merging changes no output."""

import peft
import pytest
import torch

from smolora_core import LoRAConfig
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.merge import merge_and_save
from smolora_core.lora.targets import choose_targets
from tests.support.known_families import KNOWN, RECORDS, REGISTRY, TASK, difference, outputs, write_adapter
from tests.support.tiny import tiny


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
