"""Every built-in record fits the models it speaks for: attention alone is adapted, and every adapter learns."""

import re
import warnings

import pytest
import torch
import transformers

from smolora_core import LoRAConfig, Targets
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.targets import choose_targets, matches
from smolora_core.model.header import read_header
from tests.support.known_families import KNOWN, RECORDS, REGISTRY, TASK
from tests.support.tiny import inputs, tiny


def test_at_least_75_architectures_are_proved():
    assert len(KNOWN) >= 75
    assert {"llama", "gpt2", "bert", "t5"} <= set(KNOWN)


def test_no_architecture_has_two_records():
    every = [name for found in REGISTRY.of_kind(Targets) for name in found.component.model_types]
    assert sorted(every) == sorted(set(every))


@pytest.mark.parametrize("model_type", RECORDS)
def test_its_attention_is_adapted_and_learns(model_type, tmp_path):
    if model_type not in KNOWN:
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    record = RECORDS[model_type]
    base = tiny(model_type, encoder=record.name in ("bert", "albert") or "encoders" in record.summary)
    base.save_pretrained(tmp_path)
    base.name_or_path = str(tmp_path)
    choice = choose_targets("auto", model_type, adaptable_modules(base), REGISTRY)

    # Every pattern matches, in the model and in its files, and matches projections of attention alone.
    assert choice.record.component is record
    assert all(any(matches(pattern, module) for module in choice.modules) for pattern in record.modules)
    assert not re.search(r"(lm_head|classifier|embed|router|experts|vision|mlp|ffn|fc\d)", " ".join(choice.modules))
    in_file = choose_targets("auto", model_type, read_header(tmp_path).modules, REGISTRY)
    assert in_file.modules and {each.split(".")[-1] for each in in_file.modules} == {
        each.split(".")[-1] for each in choice.modules
    }

    # PEFT adapts these and no others, and each gets a gradient.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = attach(base, LoRAConfig(r=2, dropout=0.0), choice, TASK, str(tmp_path), seed=1).model
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert len(trained) == 2 * len(choice.modules)
    for name, parameter in trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.eval()(**inputs(base))[0].square().mean().backward()
    sizes = {name: 0.0 if each.grad is None else float(each.grad.norm()) for name, each in trained.items()}
    assert not [name for name, size in sizes.items() if not 0 < size < float("inf")]
