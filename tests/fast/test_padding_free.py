"""Padding-free batches give the gradients of single sequences in models that isolate them; other models are detected."""

import copy

import pytest
import torch

from smolora_core.batches.padding import concatenate, pad
from smolora_core.fast.apply import make_fast
from smolora_core.fast.padding_free import choose_batching
from smolora_plugins.tasks.causal_lm import CausalLM
from tests.support.families import HONOURED, expected, make
from tests.support.small_run import batch, cross_entropy, difference, focal, gradients, objective, rows


def trained(model, micro_batch):
    model.zero_grad()
    found = objective(cross_entropy, model)(model, micro_batch)
    (found.sum / found.weight).backward()
    return (found.sum / found.weight).item(), gradients(model)


@pytest.mark.parametrize("family", HONOURED)
def test_the_gradient_is_that_of_rows_alone(family):
    model = make(family)
    loss, gradient = expected(model, rows())
    speed = make_fast(model, CausalLM(), "token")
    assert speed.batching.name == "padding-free", speed.batching.reason
    found = trained(model, speed.batching.collate(rows()))
    assert found[0] == pytest.approx(loss, rel=1e-6)
    assert difference(found[1], gradient) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_in_bfloat16_it_is_as_far_from_the_truth_as_with_padding(family):
    model = make(family, torch.bfloat16)
    _, gradient = expected(model, rows())
    padded = difference(trained(model, batch(rows()))[1], gradient)
    speed = make_fast(model, CausalLM(), "token")
    assert difference(trained(model, speed.batching.collate(rows()))[1], gradient) < 1.5 * padded


@pytest.mark.parametrize("family", ["bloom", "mamba"])
def test_a_model_that_lets_rows_look_into_each_other_gets_padding(family):
    chosen = choose_batching("auto", make(family), CausalLM(), "token")
    assert (chosen.name, chosen.collate) == ("grouped", None)
    assert chosen.reason.startswith("the model ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_leak_is_found(monkeypatch, dtype):
    model = make("llama", dtype)
    from smolora_core.fast import attention

    whole = attention.document_attention
    leaking = lambda q, k, v, bounds, *more: whole(q, k, v, [bounds[0], bounds[-1]], *more)  # noqa: E731
    monkeypatch.setattr(attention, "document_attention", leaking)
    chosen = choose_batching("auto", model, CausalLM(), "token")
    assert chosen.reason == "the model does not isolate sequences without padding: changing sequence 2 changes sequence 3"


def test_a_task_that_pads_keeps_padding():
    class Padding:
        def collate(self, of, pad_token_id):
            return pad(of, pad_token_id)

    assert choose_batching("auto", make("llama"), Padding(), "token").reason == "the task requires padding"


def test_a_loss_of_whole_batches_keeps_padding():
    assert choose_batching("auto", make("llama"), CausalLM(), "model").reason == "the loss takes whole batches"


def test_it_can_be_switched_off():
    chosen = choose_batching("padded", make("llama"), CausalLM(), "token")
    assert (chosen.name, chosen.reason, chosen.collate) == ("padded", "as configured", None)


def test_columns_stay_with_their_rows():
    model = make("llama")
    record = {"columns": ("weight",)}
    padded = objective(focal, model, **record)(model, batch(rows()))
    speed = make_fast(model, CausalLM(), "token", kernels=False)
    packed = objective(focal, model, **record)(model, speed.batching.collate(rows()))
    assert packed.sum.item() == pytest.approx(padded.sum.item(), rel=1e-6)
    assert packed.weight == padded.weight


def test_no_row_predicts_the_first_token_of_the_next():
    made = concatenate([{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7, 8, 9], "labels": [7, 8, 9]}])
    assert made["labels"].tolist() == [[-100, 6, -100, 8, 9]]
    assert made["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert made["cu_seq_lens_q"].tolist() == [0, 2, 5]


def test_padded_rows_are_computed_as_before():
    model = make("llama").eval()
    before = model(**{name: batch(rows())[name] for name in ("input_ids", "attention_mask")}).logits
    choose_batching("auto", model, CausalLM(), "token")
    after = model(**{name: batch(rows())[name] for name in ("input_ids", "attention_mask")}).logits
    assert torch.equal(before, after)


def test_undoing_it_gives_the_attention_back():
    model = make("llama")
    speed = make_fast(model, CausalLM(), "token")
    speed.undo()
    assert model.config._attn_implementation == "sdpa"


def test_activation_checkpointing_keeps_rows_apart():
    model = make("llama")
    loss, gradient = expected(model, rows())
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    speed = make_fast(model, CausalLM(), "token")
    found = trained(model, speed.batching.collate(rows()))
    assert found[0] == pytest.approx(loss, rel=1e-6)
    assert difference(found[1], gradient) < 1e-5


@pytest.mark.parametrize("lengths", [(400, 30, 20, 350), (330,), (1, 1, 340, 2)])
def test_long_rows_beside_short_ones(lengths):
    """Above some length another kernel computes."""
    model = make("qwen2")
    some = rows([(2, each) for each in lengths])
    model.config.max_position_embeddings = 512
    loss, gradient = expected(model, some)
    speed = make_fast(model, CausalLM(), "token")
    found = trained(model, speed.batching.collate(some))
    assert found[0] == pytest.approx(loss, rel=1e-6)
    assert difference(found[1], gradient) < 1e-5


def test_a_copy_of_a_fast_model_is_a_model_of_its_own():
    model = make("llama")
    make_fast(model, CausalLM(), "token")
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert model(input_ids=torch.tensor([[3, 4, 5]])).logits.abs().max() > 0
    assert other(input_ids=torch.tensor([[3, 4, 5]])).logits.abs().max() == 0
