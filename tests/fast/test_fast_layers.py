"""Fused layers give the same results as PEFT's and transformers' layers, and behave like them in every other respect."""

import copy

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from smolora_core.fast.apply import make_fast
from smolora_core.fast.lora_linear import use_fast_lora
from smolora_core.fast.norms_and_gates import use_fused_gates, use_fused_norms
from smolora_plugins.tasks.causal_lm import CausalLM
from tests.support.families import make
from tests.support.small_run import batch, difference, gradients, rows

NORMED = ["llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "olmo2", "granite"]


def logits(model):
    return model(input_ids=batch(rows())["input_ids"], use_cache=False).logits


def gradient(model):
    model.zero_grad()
    logits(model).square().mean().backward()
    return gradients(model)


@pytest.mark.parametrize("family", NORMED)
def test_norms_are_taken_over_and_give_the_same(family):
    model = make(family)
    before, expected = logits(model).detach(), gradient(model)
    count, undo = use_fused_norms(model)
    assert count >= 5
    assert torch.equal(logits(model), before)
    assert difference(gradient(model), expected) < 1e-6
    undo()
    assert use_fused_norms(model)[0] == count


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "smollm3", "olmo2", "granite"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_gates_are_taken_over_and_give_the_same(family, bfloat16):
    model = make(family, torch.bfloat16 if bfloat16 else torch.float32)
    before, expected = logits(model).detach(), gradient(model)
    assert use_fused_gates(model)[0] == 2
    assert torch.equal(logits(model), before)
    assert difference(gradient(model), expected) < (0.02 if bfloat16 else 1e-6)


def test_a_gate_of_another_formula_is_left_alone():
    assert use_fused_gates(make("gemma3"))[0] == 0


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_a_norm_of_another_formula_is_left_alone(family):
    assert use_fused_norms(make(family))[0] == 0


def test_a_norm_that_is_trained_is_left_alone():
    model = make("llama")
    model.base_model.model.model.norm.weight.requires_grad_()
    assert use_fused_norms(model)[0] == 4


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"lora_alpha": 5}, {"rank_pattern": {"q_proj": 2}}, {"lora_bias": True}]
)
def test_lora_layers_give_the_same(options):
    model = make("qwen2", **options)
    before, expected = logits(model).detach(), gradient(model)
    assert use_fast_lora(model)[0] == 10
    torch.testing.assert_close(logits(model), before)
    assert difference(gradient(model), expected) < 1e-6


def test_dora_is_left_to_peft():
    model = make("llama", use_dora=True)
    before = logits(model).detach()
    use_fast_lora(model)
    assert torch.equal(logits(model), before)


def dropping(share):
    """A layer with an adapter that is the identity, of a base that is zero."""
    model = make("llama", lora_dropout=0.5, r=32, lora_alpha=32)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    layer.base_layer.weight.data.zero_()
    for part in (layer.lora_A, layer.lora_B):
        part["default"].weight.data.copy_(torch.eye(32))
    layer.lora_dropout["default"].p = share
    use_fast_lora(model)
    return layer.train()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    found = dropping(share)(torch.ones(1, 4000, 32)).detach()
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert found.mean().item() == pytest.approx(1.0, abs=0.01)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - share)], rel=1e-4)
    # Neither neighbours nor tokens share their fate.
    gone = (found[0] == 0).float()
    assert abs(torch.corrcoef(torch.stack([gone[:-1].flatten(), gone[1:].flatten()]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(gone.T).fill_diagonal_(0).mean()) < 0.01


def test_the_gradient_goes_where_nothing_was_dropped():
    x = torch.ones(1, 50, 32, requires_grad=True)
    found = dropping(0.5)(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(gradient, found)


def test_dropout_is_drawn_from_the_seed():
    layer, x = dropping(0.5), torch.ones(1, 50, 32)
    torch.manual_seed(7)
    once = layer(x)
    torch.manual_seed(7)
    assert torch.equal(layer(x), once)
    assert not torch.equal(layer(x), once)


def test_nothing_is_dropped_in_an_evaluation():
    torch.testing.assert_close(dropping(0.5).eval()(torch.ones(1, 50, 32)), torch.ones(1, 50, 32))


def test_an_adapter_that_is_off_changes_nothing():
    model = make("llama")
    make_fast(model, CausalLM(), "token")
    with model.disable_adapter():
        off = logits(model)
    torch.testing.assert_close(off, logits(model.unload()))


def test_two_active_adapters_are_left_to_peft():
    model = make("llama")
    model.add_adapter("other", copy.deepcopy(model.peft_config["default"]))
    model.base_model.set_adapter(["default", "other"])
    before = logits(model).detach()
    use_fast_lora(model)
    assert torch.equal(logits(model), before)


def test_what_is_saved_is_what_peft_saves(tmp_path):
    model = make("llama")
    model.save_pretrained(tmp_path / "before")
    make_fast(model, CausalLM(), "token")
    model.save_pretrained(tmp_path / "after")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("before", "after"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loaded = PeftModel.from_pretrained(make("llama").unload(), tmp_path / "after")
    torch.testing.assert_close(logits(loaded.eval()), logits(model.eval()))


def test_a_fast_model_merges():
    model = make("llama").eval()
    make_fast(model, CausalLM(), "token")
    before = logits(model).detach()
    torch.testing.assert_close(logits(model.merge_and_unload()), before, rtol=1e-4, atol=1e-5)


def test_it_can_be_switched_off():
    model = make("llama")
    classes = [type(module) for module in model.modules()]
    speed = make_fast(model, CausalLM(), "token", batching="padded", kernels=False)
    assert (speed.layers, speed.norms, speed.gates) == (0, 0, 0)
    assert [type(module) for module in model.modules()] == classes


def test_it_can_be_undone():
    model = make("llama")
    classes = [type(module) for module in model.modules()]
    make_fast(model, CausalLM(), "token").undo()
    assert [type(module) for module in model.modules()] == classes
