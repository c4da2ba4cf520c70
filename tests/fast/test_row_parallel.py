"""Row-parallel threads give the gradient of all rows at once, deterministically."""

import threading
from functools import partial

import attrs
import pytest
import torch
import transformers
from torch._subclasses import FakeTensorMode

from smolora_core.batches.padding import concatenate, flat_positions, pad, split, take
from smolora_core.fast.apply import make_fast
from smolora_core.fast.lora_linear import use_fast_lora
from smolora_core.fast.padding_free import choose_batching
from smolora_core.fast.row_parallel import MIN_ELEMENTS, choose_row_parallel
from smolora_core.fast.threads import balance_rows
from smolora_core.model.head import on_all_rows
from smolora_core.training.oom import Recovery
from smolora_core.training.profiling import profile_code
from smolora_plugins.tasks.causal_lm import CausalLM
from tests.support.families import HONOURED, make
from tests.support.small_run import adapted, cross_entropy, difference, gradients, objective, rows


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def learned(model, micro_batch, share):
    model.zero_grad()
    found = attrs.evolve(objective(cross_entropy, model), run_model=share)(model, micro_batch)
    (found.sum / found.weight).backward()
    return (found.sum / found.weight).item(), gradients(model)


def shared(model, min_elements=0):
    row_parallel = choose_row_parallel(model, min_elements)
    assert not row_parallel.problem
    return row_parallel.run


def drawing_by_itself():
    model = make("gpt2")
    model.get_base_model().transformer.h[1].mlp.dropout.p = 0.1
    return model


@pytest.mark.parametrize("family", HONOURED)
def test_the_gradient_is_that_of_all_rows_at_once(family):
    model = make(family)
    choose_batching("auto", model, CausalLM(), "token")
    for collated in (concatenate(rows()), pad(rows(), 0)):
        loss, gradient = learned(model, collated, on_all_rows)
        found = learned(model, collated, shared(model))
        assert found[0] == pytest.approx(loss, rel=1e-6)
        assert difference(found[1], gradient) < 1e-5


def test_each_thread_has_rows_of_its_own_and_the_processors_are_given_back():
    model, seen, both = make("llama"), set(), threading.Barrier(2, timeout=60)
    share = shared(model)

    def compute(model, inputs):
        both.wait()
        seen.add((threading.get_ident(), len(inputs["input_ids"]), torch.get_num_threads()))
        return inputs["input_ids"].float()

    batch = pad(rows(), 0)
    assert torch.equal(share(compute, model, {"input_ids": batch["input_ids"]}), batch["input_ids"].float())
    assert len(seen) == 2 and {each[2] for each in seen} == {1}
    assert sum(each[1] for each in seen) == len(rows()) and threading.get_ident() not in {each[0] for each in seen}
    assert torch.get_num_threads() == 2


def test_what_is_dropped_is_the_same_every_time():
    model = make("llama")
    for layer in model.modules():
        if hasattr(layer, "lora_dropout"):
            layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    share = make_fast(model, CausalLM(), "token").row_parallel
    assert "draw" not in share.problem
    model.train()
    found = []
    for seed in (1, 1, 1, 1, 2):
        torch.manual_seed(seed)
        found.append((learned(model, concatenate(rows()), shared(model)), torch.get_rng_state()))
    for (loss, gradient), state in found[:4]:
        assert loss == found[0][0][0] and difference(gradient, found[0][0][1]) == 0
        assert torch.equal(state, found[0][1])
    assert found[4][0][0] != found[0][0][0]


@pytest.mark.parametrize("layers", [transformers.T5Config, transformers.BertConfig])
def test_rows_of_other_tasks_are_shared_out(layers):
    torch.manual_seed(0)
    if layers is transformers.T5Config:
        config = layers(vocab_size=303, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
        model = adapted(transformers.T5ForConditionalGeneration(config), target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")
    else:
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = layers(vocab_size=303, **shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        model = adapted(transformers.BertForMaskedLM(config), target_modules=["query", "value"], task_type=None)
    batch = pad(rows(), 0)
    if layers is transformers.T5Config:
        batch["decoder_input_ids"] = batch["input_ids"]
    loss, gradient = learned(model, batch, on_all_rows)
    found = learned(model, batch, shared(model))
    assert found[0] == pytest.approx(loss, rel=1e-6)
    assert difference(found[1], gradient) < 1e-5


def test_a_model_that_draws_by_itself_is_run_at_once():
    model = drawing_by_itself()
    before, training = torch.get_rng_state(), [each.training for each in model.modules()]
    assert "draw random numbers" in choose_row_parallel(model).problem
    assert torch.equal(torch.get_rng_state(), before) and [each.training for each in model.modules()] == training


def test_dropout_of_an_adapter_is_no_obstacle():
    model = make("llama")
    for layer in model.modules():
        if hasattr(layer, "lora_dropout"):
            layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    assert not choose_row_parallel(model).problem
    use_fast_lora(model)
    assert not choose_row_parallel(model).problem


def test_what_keeps_something_between_rows_is_run_at_once():
    model = make("llama")
    hook = model.get_base_model().model.layers[1].register_forward_hook(lambda *given: None)
    assert "hooks" in choose_row_parallel(model).problem
    hook.remove()
    model.get_base_model().model.rotary_emb.rope_type = "dynamic"
    assert "longest row" in choose_row_parallel(model).problem
    model.get_base_model().model.rotary_emb.rope_type = "default"
    assert not choose_row_parallel(model).problem
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    assert "recomputed layers" in choose_row_parallel(model).problem


def test_one_thread_is_no_problem_that_anybody_is_told_of():
    torch.set_num_threads(1)
    speed = make_fast(make("llama"), CausalLM(), "token")
    assert speed.row_parallel.run is on_all_rows
    assert not any("threads" in text for text in speed.describe())


def test_it_is_said_why_rows_are_not_shared_out():
    speed = make_fast(drawing_by_itself(), CausalLM(), "token")
    expected = "row-parallel threads are off: its layers draw random numbers for all rows at once"
    assert expected in list(speed.describe())


def test_memory_that_runs_out_in_a_thread_is_recovered_from():
    model, whole = make("llama"), pad(rows(), 0)
    loss, gradient = learned(model, whole, on_all_rows)
    share, parts = shared(model), []

    def short(compute, model, inputs):
        def run(model, part):
            parts.append(len(part["input_ids"]))
            if parts[-1] > 1:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes.")
            return compute(model, part)

        return share(run, model, inputs)

    model.zero_grad()
    measure = attrs.evolve(objective(cross_entropy, model), run_model=short)

    def work(batch):
        found = measure(model, batch)
        found.sum.backward()
        return found

    found = Recovery().measure(whole, work, "at step 1", 1)
    assert max(parts) > 1 and min(parts) == 1
    assert (found.sum / found.weight).item() == pytest.approx(loss, rel=1e-6)
    assert difference({name: each / found.weight for name, each in gradients(model).items()}, gradient) < 1e-5


def test_an_error_in_a_thread_is_raised_when_all_have_ended():
    ended = []

    def compute(first, model, inputs):
        if inputs["input_ids"][0, 0] == first:
            raise ValueError("this row")
        ended.append(True)
        return inputs["input_ids"].float()

    model, batch = make("llama"), pad(rows(), 0)
    with pytest.raises(ValueError, match="this row"):
        shared(model)(partial(compute, batch["input_ids"][0, 0]), model, {"input_ids": batch["input_ids"]})
    assert ended == [True]


@pytest.mark.parametrize("threads", [2, 4, 6, 16])
def test_every_row_is_given_to_one_thread(threads):
    generator = torch.Generator().manual_seed(threads)
    for count in range(1, 40):
        lengths = torch.randint(1, 500, (count,), generator=generator).tolist()
        groups = balance_rows(lengths, threads, min_tokens=100)
        assert sorted(row for rows in groups for row in rows) == list(range(count))
        loads = [sum(lengths[row] for row in rows) for rows in groups]
        assert threads % len(groups) == 0
        assert len(groups) == 1 or (min(loads) > 0 and sum(loads) >= 100 * len(groups))
        assert max(loads) * len(groups) <= 1.15 * sum(loads)


def test_rows_are_not_shared_out_where_one_would_keep_the_others_waiting():
    assert balance_rows([300, 100], 2, 1) == [[0, 1]]
    assert balance_rows([100, 100], 2, 101) == [[0, 1]]
    assert balance_rows([100, 100], 2, 100) == [[0], [1]]
    # Two threads for each of two parts, where four parts would be uneven.
    assert balance_rows([300, 100, 200], 4, 1) == [[0], [1, 2]]


def test_few_tokens_are_not_shared_out():
    model = make("llama")
    width = model.get_input_embeddings().weight.shape[1]
    for tokens, parts in ((MIN_ELEMENTS // width - 1, [2]), (MIN_ELEMENTS // width, [1, 1])):
        seen = []

        def compute(model, inputs, seen=seen):
            seen.append(len(inputs["input_ids"]))
            return inputs["input_ids"].float()

        shared(model, MIN_ELEMENTS)(compute, model, {"input_ids": torch.zeros(2, tokens, dtype=torch.int64)})
        assert seen == parts


def test_a_part_of_a_micro_batch_is_what_would_be_collated_of_its_rows():
    given = [{**row, "weight": float(number)} for number, row in enumerate(rows())]
    for chosen in ([0], [2, 0], [1, 3]):
        found, expected = take(concatenate(given), chosen), concatenate([given[row] for row in chosen])
        assert found.keys() == expected.keys()
        assert all(torch.equal(torch.as_tensor(found[name]), torch.as_tensor(expected[name])) for name in found)
        places = flat_positions(concatenate(given), chosen)
        assert torch.equal(concatenate(given)["input_ids"][:, places], expected["input_ids"])
    halves = split(pad(given, 0))
    assert torch.equal(torch.cat([each["input_ids"] for each in halves]), pad(given, 0)["input_ids"])


def test_a_profiler_and_late_hooks_see_all_of_it():
    model, batch, seen = make("llama"), pad(rows(), 0), []

    def compute(model, inputs):
        seen.append(len(inputs["input_ids"]))
        return inputs["input_ids"].float()

    share = partial(shared(model), compute, model, {"input_ids": batch["input_ids"]})
    with profile_code("/dev/null"):
        share()
    with torch.autocast("cpu"):
        share()
    with FakeTensorMode(allow_non_fake_inputs=True):
        share()
    hook = model.get_base_model().lm_head.register_forward_hook(lambda *given: None)
    share()
    assert seen == 4 * [len(rows())]
    hook.remove()
    share()
    assert len(seen) == 6


def test_processors_are_divided_among_the_parts():
    torch.set_num_threads(4)
    model, seen = make("llama"), []

    def compute(model, inputs):
        seen.append((len(inputs["input_ids"]), torch.get_num_threads()))
        return inputs["input_ids"].float()

    ids = torch.zeros(2, 8, dtype=torch.int64)
    shared(model)(compute, model, {"input_ids": ids})
    assert seen == [(1, 2), (1, 2)]
    assert torch.get_num_threads() == 4
