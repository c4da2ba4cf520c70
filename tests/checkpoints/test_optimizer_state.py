"""Tensors of a checkpoint come back under their names, bit by bit, or nothing is loaded."""

import peft
import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from smolora_core.checkpoints.optimizer_state import (
    load_adapter,
    load_optimizer,
    read_tensors,
    refuse_non_finite,
    write_optimizer,
)
from smolora_core.errors import CheckpointError

LAYER = "base_model.model.model.layers.0.self_attn"
NAME = f"{LAYER}.q_proj.lora_A.default.weight"
HINT = "resume with the same model, lora and task as the checkpoint"


def adapted(base, seed=3, dtype=None, **lora):
    torch.manual_seed(seed)
    options = {"r": 4, "target_modules": ["q_proj", "v_proj"], **lora}
    loader = transformers.AutoModelForSequenceClassification if "modules_to_save" in lora else transformers.AutoModelForCausalLM
    model = peft.get_peft_model(loader.from_pretrained(base, dtype="float32"), peft.LoraConfig(**options))
    for each in model.parameters():
        if each.requires_grad:
            each.data = torch.randn_like(each) if dtype is None else torch.randn_like(each).to(dtype)
    return model


def optimizer_of(model, kind=torch.optim.AdamW, **options):
    """Make an optimizer that has taken a step."""
    made = kind([each for each in model.parameters() if each.requires_grad], **options)
    for group in made.param_groups:
        for each in group["params"]:
            each.grad = torch.randn_like(each)
    made.step()
    return made


def save(folder, model, optimizer):
    model.save_pretrained(folder, save_embedding_layers=False)
    write_optimizer(folder, optimizer, model)
    return folder


def trained(model):
    return {name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad}


def state(optimizer):
    return [
        {slot: torch.as_tensor(value) for slot, value in slots.items()} for slots in optimizer.state_dict()["state"].values()
    ]


def same(one, other):
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(each, b[slot]) for slot, each in a.items())
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    "lora", [{}, {"use_dora": True}, {"bias": "lora_only"}, {"modules_to_save": ["score"], "task_type": "SEQ_CLS"}]
)
def test_an_adapter_comes_back_bit_by_bit(llama, tmp_path, lora):
    model, other = adapted(llama, **lora), adapted(llama, seed=4, **lora)
    save(tmp_path, model, optimizer_of(model))
    load_adapter(read_tensors(tmp_path, other), other)
    assert trained(other).keys() == trained(model).keys()
    assert all(torch.equal(each, trained(model)[name]) for name, each in trained(other).items())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"fused": True}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (transformers.Adafactor, {"lr": 0.1, "relative_step": False}),
    ],
)
def test_an_optimizer_comes_back_bit_by_bit(llama, tmp_path, kind, options):
    model, other = adapted(llama), adapted(llama, seed=4)
    optimizer, again = optimizer_of(model, kind, **options), optimizer_of(other, kind, **options)
    save(tmp_path, model, optimizer)
    load_optimizer(read_tensors(tmp_path, other), again, other)
    assert same(state(again), state(optimizer))


def test_slots_find_their_parameters_by_name(llama, tmp_path):
    model = adapted(llama)
    save(tmp_path, model, optimizer_of(model))
    parameters = [each for each in model.parameters() if each.requires_grad]
    again = torch.optim.AdamW(parameters[::-1])
    load_optimizer(read_tensors(tmp_path, model), again, model)
    stored = load_file(tmp_path / "optimizer.safetensors")
    for name, each in model.named_parameters():
        if each.requires_grad:
            assert torch.equal(again.state[each]["exp_avg"], stored[f"{name}.exp_avg"])


def test_the_learning_rate_is_that_of_this_run(llama, tmp_path):
    model = adapted(llama)
    save(tmp_path, model, optimizer_of(model, lr=1e-2))
    again = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=5e-4)
    load_optimizer(read_tensors(tmp_path, model), again, model)
    assert [group["lr"] for group in again.param_groups] == [5e-4]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 8}, f"has '{LAYER}.q_proj.lora_A.weight' as float32 [4, 32], but this run trains float32 [8, 32]"),
        (
            {"dtype": torch.bfloat16},
            f"has '{LAYER}.q_proj.lora_A.weight' as float32 [4, 32], but this run trains bfloat16 [4, 32]",
        ),
        (
            {"target_modules": ["q_proj"]},
            f"has different parameters: this run does not train '{LAYER}.v_proj.lora_A.weight' and 3 more",
        ),
        (
            {"target_modules": ["q_proj", "v_proj", "o_proj"]},
            f"has different parameters: it does not contain '{LAYER}.o_proj.lora_A.weight' and 3 more",
        ),
    ],
)
def test_other_parameters_are_refused(llama, tmp_path, lora, message):
    model = adapted(llama)
    save(tmp_path, model, optimizer_of(model))
    with pytest.raises(CheckpointError) as error:
        read_tensors(tmp_path, adapted(llama, **lora))
    assert str(error.value) == f"{tmp_path / 'adapter_model.safetensors'} {message}; {HINT}"


def test_parameters_of_the_same_sizes_are_refused_by_name(llama, tmp_path):
    """Key and value are as wide as each other, and by position one would get the other's state."""
    model, other = adapted(llama, target_modules=["k_proj"]), adapted(llama, target_modules=["v_proj"])
    save(tmp_path, model, optimizer_of(model))
    save(tmp_path / "other", other, optimizer_of(other))
    (tmp_path / "other" / "adapter_model.safetensors").replace(tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"optimizer.safetensors has different parameters: this run does not train 'base_model.*k_proj"
    ):
        read_tensors(tmp_path, other)


def test_a_slot_of_another_shape_is_refused(llama, tmp_path):
    model = adapted(llama)
    save(tmp_path, model, optimizer_of(model))
    file = tmp_path / "optimizer.safetensors"
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(file)
    save_file({**tensors, f"{NAME}.exp_avg": torch.zeros(2)}, file, metadata)
    with pytest.raises(CheckpointError, match=r"exp_avg' float32 \[2\] does not match any parameter"):
        read_tensors(tmp_path, model)


def test_another_optimizer_is_refused(llama, tmp_path):
    model = adapted(llama)
    save(tmp_path, model, optimizer_of(model))
    with pytest.raises(CheckpointError) as error:
        load_optimizer(read_tensors(tmp_path, model), optimizer_of(model, torch.optim.SGD), model)
    assert str(error.value) == (
        f"{tmp_path / 'optimizer.safetensors'} was written by AdamW, but this run trains with SGD; "
        "resume with the same training.extra.optim"
    )


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.safetensors"])
def test_a_file_that_is_cut_off_is_refused(llama, tmp_path, file):
    model = adapted(llama)
    save(tmp_path, model, optimizer_of(model))
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=f"{file} cannot be read"):
        read_tensors(tmp_path, model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite_is_refused(llama, value):
    model = adapted(llama)
    refuse_non_finite(model, step=4)
    dict(model.named_parameters())[NAME].data[0, 0] = value
    with pytest.raises(CheckpointError) as error:
        refuse_non_finite(model, step=4)
    assert str(error.value) == (
        f"the checkpoint of step 4 was not saved: {NAME!r} contains non-finite values; "
        "earlier checkpoints are kept; lower training.learning_rate"
    )


def test_a_slot_that_is_not_finite_is_refused(llama):
    model = adapted(llama)
    optimizer = optimizer_of(model)
    optimizer.state[dict(model.named_parameters())[NAME]]["exp_avg_sq"][0, 0] = float("inf")
    with pytest.raises(CheckpointError, match=r"lora_A.default.weight.exp_avg_sq' contains non-finite values"):
        refuse_non_finite(model, optimizer, step=4)
