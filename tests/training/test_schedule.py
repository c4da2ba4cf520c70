"""The rate, the norm and the loss of every step: what is used, what is logged, and what weight decay and clipping leave out."""

import pytest
import torch
from transformers import TrainerCallback

from smolora_core.training.optimizer import make_optimizer
from tests.support.resumed import make
from tests.support.scripted import values_of, while_running
from tests.support.small_run import Watch, cross_entropy, load, objective, rows, trainer

RATE = 1e-2


class Used(TrainerCallback):
    """Keeps the rate that the optimizer has for each step, and the norm of its gradient."""

    def __init__(self):
        self.rates, self.norms = [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **more):
        self.rates.append(optimizer.param_groups[0]["lr"])
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        self.norms.append(torch.nn.utils.get_total_norm(gradients).item())


def trained(llama, folder, callbacks=(), **changes):
    """Train with every step logged."""
    used = Used()
    made = make(llama, folder, **{"held_out": (), "logging_steps": 1, "save_steps": 500, **changes})
    for each in (*callbacks, used):
        made.add_callback(each)
    made.train()
    return made, used


def linear(steps, warmup=0):
    """The shares of the rate that a linear schedule has in each step."""
    up = [step / warmup for step in range(warmup)]
    return up + [(steps - step) / (steps - warmup) for step in range(warmup, steps)]


@pytest.mark.parametrize(
    ("changes", "steps", "warmup"),
    [
        ({"num_train_epochs": 2}, 6, 0),
        ({"num_train_epochs": 1.5}, 5, 0),
        ({"num_train_epochs": 0.2}, 1, 0),
        ({"max_steps": 4}, 4, 0),
        ({"max_steps": 8, "num_train_epochs": 1}, 8, 0),
        ({"extra": {"warmup_steps": 2}}, 6, 2),
        ({"extra": {"warmup_steps": 0.5}}, 6, 3),
        ({"extra": {"dataloader_drop_last": True}}, 4, 0),
    ],
    ids=["epochs", "a half", "a fifth", "in an epoch", "beyond", "warm-up", "half of it warm-up", "whole steps only"],
)
def test_each_step_logs_the_rate_that_it_used_and_none_is_left_after_the_last_one(llama, tmp_path, changes, steps, warmup):
    made, used = trained(llama, tmp_path, **changes)
    logged = values_of(made, "learning_rate")
    assert logged == dict(enumerate(used.rates, start=1))
    assert used.rates == pytest.approx([RATE * share for share in linear(steps, warmup)])
    assert made.optimization.rate == made.optimization.schedule.get_last_lr()[0] == 0


def test_a_schedule_with_a_floor_ends_at_it(llama, tmp_path):
    kind = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}
    made, used = trained(llama, tmp_path, extra=kind)
    assert used.rates[0] == RATE
    assert made.optimization.rate == pytest.approx(RATE / 10)


@pytest.mark.parametrize(("size", "accumulation"), [(6, 1), (3, 2), (1, 6)])
def test_the_schedule_moves_once_an_optimizer_step(llama, tmp_path, size, accumulation):
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
    _, used = trained(llama, tmp_path, extra={"warmup_steps": 2}, **split)
    assert used.rates == pytest.approx([RATE * share for share in linear(6, 2)])


def test_a_step_without_a_rate_changes_nothing(llama, tmp_path):
    """The first line says 0 because the first step of a warm-up has no rate, and not by accident."""
    before, after = {}, {}

    def look(args, state, control, model=None, **more):
        into = after if state.global_step else before
        into |= {name: each.clone() for name, each in model.named_parameters() if each.requires_grad}
        control.should_training_stop |= state.global_step == 1

    watching = [while_running(event, look) for event in ("on_train_begin", "on_step_end")]
    made, _ = trained(llama, tmp_path, watching, extra={"warmup_steps": 2})
    assert values_of(made, "learning_rate") == {1: 0}
    assert all(torch.equal(each, before[name]) for name, each in after.items())


def test_a_run_that_ends_early_has_had_the_rates_of_the_whole_one(llama, tmp_path):
    def stop(args, state, control, **more):
        control.should_training_stop = state.global_step == 3

    made, used = trained(llama, tmp_path, [while_running("on_step_end", stop)])
    assert used.rates == pytest.approx([RATE * share for share in linear(6)[:3]])
    assert made.optimization.rate == pytest.approx(RATE * linear(6)[3])


def test_the_logged_loss_is_the_mean_over_targets_since_the_last_line(llama, tmp_path):
    """In steps of two rows, with as many supervised tokens in the odd ones as make a difference."""
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_train_epochs": 1, "learning_rate": 1e-30}
    options = {"train": rows(), "extra": {"train_sampling_strategy": "sequential"}, **split}
    by_step, _ = trained(llama, tmp_path, **options)
    by_pair, _ = trained(llama, tmp_path, **{**options, "logging_steps": 2})
    tokens = [sum(label >= 0 for row in rows()[start : start + 2] for label in row["labels"][1:]) for start in range(0, 8, 2)]
    assert tokens[0] != tokens[1]
    one, two, three, four = (loss * count for loss, count in zip(values_of(by_step, "loss").values(), tokens, strict=True))
    expected = {2: (one + two) / sum(tokens[:2]), 4: (three + four) / sum(tokens[2:])}
    assert values_of(by_pair, "loss") == pytest.approx(expected)
    assert values_of(by_pair, "train_loss")[4] == pytest.approx((one + two + three + four) / sum(tokens))


def test_the_logged_norm_is_the_one_before_clipping(llama, tmp_path):
    free, used_free = trained(llama, tmp_path / "free", max_steps=1, extra={"max_grad_norm": 0})
    made, used = trained(llama, tmp_path / "clipped", max_steps=1, extra={"max_grad_norm": 1e-3})
    assert values_of(made, "grad_norm") == values_of(free, "grad_norm") == {1: pytest.approx(used_free.norms[0])}
    assert used.norms == [pytest.approx(1e-3, rel=1e-2)]


@pytest.mark.parametrize("max_grad_norm", [0, None, 1e9])
def test_no_norm_to_clip_to_clips_nothing(llama, tmp_path, max_grad_norm):
    watches = []
    for value in (0.0, max_grad_norm):
        model, watch = load(llama), Watch()
        options = {"max_steps": 1, "extra": {"max_grad_norm": value}, "watch": watch}
        trainer(model, objective(cross_entropy, model), tmp_path, rows(), **options).train()
        watches.append(watch.gradients[0])
    assert all(torch.equal(each, watches[1][name]) for name, each in watches[0].items())


@pytest.mark.parametrize(
    ("base", "lora", "spared"),
    [
        ("llama", {}, []),
        ("llama", {"modules_to_save": ["norm"]}, ["norm.modules_to_save.default.weight"]),
        ("llama", {"use_dora": True, "bias": "all"}, []),
        ("gpt2", {"bias": "all"}, ["bias"]),
        ("gpt2", {"modules_to_save": ["ln_f"]}, ["ln_f.modules_to_save.default.weight", "ln_f.modules_to_save.default.bias"]),
    ],
    ids=["adapter", "norm", "dora", "biases", "layer norm"],
)
def test_weight_decay_leaves_out_biases_and_norms_alone(request, tmp_path, base, lora, spared):
    """LoRA's A and B are decayed alike."""
    model = load(request.getfixturevalue(base), **lora)
    made = trainer(model, objective(cross_entropy, model), tmp_path, extra={"weight_decay": 0.1})
    names = {id(each): name for name, each in model.named_parameters()}
    decays, free = ({names[id(each)] for each in group["params"]} for group in make_optimizer(model, made.args).param_groups)
    assert decays | free == {name for name, each in model.named_parameters() if each.requires_grad}
    assert {name for name in decays | free if name.endswith(tuple(spared))} == free
    assert all(name.replace("lora_A", "lora_B") in decays for name in decays if "lora_A" in name)
    assert sum("lora_A" in name for name in decays) == sum("lora_B" in name for name in decays) > 0


def test_weight_decay_decays(llama, tmp_path):
    """By rate times decay of what the parameters are, before anything else."""
    sizes = []
    for decay in (0.0, 0.5):
        model = load(llama)
        options = {"max_steps": 1, "extra": {"weight_decay": decay}}
        trainer(model, objective(cross_entropy, model), tmp_path, rows(), **options).train()
        sizes.append({name: each.detach().clone() for name, each in model.named_parameters() if each.requires_grad})
    before = {name: each for name, each in load(llama).named_parameters() if each.requires_grad}
    for name, each in sizes[0].items():
        torch.testing.assert_close(each - sizes[1][name], RATE * 0.5 * before[name], rtol=1e-3, atol=1e-6)
