"""A step whose numbers are not finite is skipped, and too many of them stop the run."""

import math

import pytest
import torch

from smolora_core.errors import CheckpointError, TrainingError
from tests.support.injector import fail_at
from tests.support.resumed import copied, disturb, dropping_out, end_of, make
from tests.support.small_run import Watch, cross_entropy, load, objective, rows, trainer

ALONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "extra": {"lr_scheduler_type": "constant"}}


def without_slope(logits, targets):
    """Finite itself, with a gradient that is not."""
    return cross_entropy(logits, targets) + torch.sqrt(logits[:, 0] - logits[:, 0])


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Steps(Watch):
    """Keeps what the adapter was after every step."""

    def __init__(self):
        super().__init__()
        self.after, self.tokens = [], []

    def on_step_end(self, args, state, control, model=None, **more):
        self.after.append(values(model))


def run(llama, folder, bad, loss=None, **changes):
    """Train with a loss that is wrong in some steps; return what it left, its warnings and what was seen."""
    model, said, watch = load(llama), [], Steps()
    calls = watch.tokens
    broken = loss or (lambda logits, targets: cross_entropy(logits, targets) * math.nan)

    def measure(logits, targets):
        calls.append(len(targets))
        return (broken if len(calls) in bad else cross_entropy)(logits, targets)

    made = trainer(model, objective(measure, model), folder, rows(), watch=watch, warn=said.append, **{**ALONE, **changes})
    try:
        made.train()
    except TrainingError as error:
        return error, said, watch
    return made, said, watch


@pytest.mark.parametrize(("loss", "what"), [(None, "the loss is nan"), (without_slope, "the gradient's norm is nan")])
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_step_is_skipped_and_said(llama, tmp_path, loss, what, max_grad_norm):
    extra = {"max_grad_norm": max_grad_norm, **ALONE["extra"]}
    made, said, watch = run(llama, tmp_path, {3}, loss, max_steps=4, extra=extra)
    assert said == [f"{what} at step 3; skipping this step"]
    moved = [
        any(not torch.equal(later[name], earlier[name]) for name in later)
        for earlier, later in zip(watch.after, watch.after[1:], strict=False)
    ]
    assert moved == [True, False, True]
    assert made.state.global_step == 4


def test_a_skipped_step_leaves_the_optimizer_alone(llama, tmp_path):
    made, _, _ = run(llama, tmp_path, {3}, max_steps=4)
    assert {slots["step"].item() for slots in made.optimization.optimizer.state_dict()["state"].values()} == {3}


def test_a_skipped_step_moves_the_schedule_on(llama, tmp_path):
    made, _, _ = run(llama, tmp_path, {3}, max_steps=4, extra={})
    assert [entry["learning_rate"] for entry in made.state.log_history if "loss" in entry] == pytest.approx(
        [1e-2, 7.5e-3, 2.5e-3]
    )


@pytest.mark.parametrize("loss", [None, without_slope])
def test_a_skipped_step_has_no_share_in_the_losses_that_are_logged(llama, tmp_path, loss):
    made, _, paired = run(llama, tmp_path, {3}, loss, max_steps=4, logging_steps=2)
    _, _, single = run(llama, tmp_path, {3}, max_steps=4)
    first, second, fourth = single.losses
    one, other = single.tokens[:2]
    assert one != other
    assert paired.losses == pytest.approx([(one * first + other * second) / (one + other), fourth])
    assert all(math.isfinite(entry.get("grad_norm", 0)) for entry in made.state.log_history)


def test_three_in_a_row_are_skipped(llama, tmp_path):
    made, said, _ = run(llama, tmp_path, {2, 3, 4, 6}, max_steps=7)
    assert [text.split(";")[0] for text in said] == [f"the loss is nan at step {step}" for step in (2, 3, 4, 6)]
    assert made.state.global_step == 7


def test_the_fourth_in_a_row_stops_the_run_and_names_the_rows(llama, tmp_path):
    seen = []

    def batch_of(model, of):
        seen.append(of["weight"].tolist())
        loss = model(input_ids=of["input_ids"]).logits.mean() ** 2
        return loss * (math.nan if len(seen) > 3 else 1), torch.tensor(1.0)

    model, saved = load(llama), []
    measure = objective(batch_of, model, kind="model", columns=("weight",))
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 4}
    with pytest.raises(TrainingError) as error:
        trainer(
            model, measure, tmp_path, rows(), save=lambda step, *_: saved.append(step) or tmp_path, save_steps=1, **split
        ).train()
    numbers = [round((weight - 0.5) * 4) for weights in seen[-2:] for weight in weights]
    assert str(error.value) == (
        f"the loss is nan at step 5, after skipping 3 steps in a row, on training rows {', '.join(map(str, numbers))}; "
        "lower training.learning_rate, set model.dtype to float32, or inspect these rows; the checkpoint of step 4 is kept"
    )
    assert saved == [1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["random", "group_by_length", "sequential"])
def test_rows_are_named_whatever_their_order_also_after_a_resume(llama, tmp_path, strategy):
    seen, model = [], dropping_out(llama)

    def broken(model, of):
        seen.append(of["weight"].tolist())
        return model(input_ids=of["input_ids"]).logits.mean() ** 2 * math.nan, torch.tensor(1.0)

    changes = {"num_train_epochs": 4, "extra": {"train_sampling_strategy": strategy}}
    make(llama, tmp_path, save_steps=4, max_steps=4, **changes).train()
    measure = objective(broken, model, kind="model", columns=("weight",))
    again = make(llama, tmp_path, model=model, measure=measure, save_steps=500, held_out=(), **changes)
    disturb()
    with pytest.raises(TrainingError) as error:
        again.train(resume_from=tmp_path / "checkpoint-4")
    numbers = [round((weight - 0.5) * 4) for weights in seen[-3:] for weight in weights]
    assert f"on training rows {', '.join(map(str, numbers))};" in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4, 5])
def test_a_run_with_skipped_steps_is_resumed_exactly(llama, tmp_path, step):
    ends = []
    for folder in ("whole", "again"):
        made = make(llama, tmp_path / folder)
        made.add_callback(fail_at((3, 4, 5), "on_step_begin", "nan"))
        disturb()
        place = copied(tmp_path / "whole", tmp_path / "again", step) if ends else None
        ends.append(end_of(made, made.train(resume_from=place)))
    assert ends[1] == ends[0]


def test_skipped_steps_before_a_resume_count(llama, tmp_path):
    made = make(llama, tmp_path, max_steps=4, num_train_epochs=3)
    made.add_callback(fail_at((3, 4), "on_step_begin", "nan"))
    made.train()
    again = make(llama, tmp_path, num_train_epochs=3)
    again.add_callback(fail_at((5, 6), "on_step_begin", "nan"))
    with pytest.raises(TrainingError, match="at step 6, after skipping 3 steps in a row"):
        again.train(resume_from=tmp_path / "checkpoint-4")


def test_what_is_not_finite_is_not_saved(llama, tmp_path):
    model, saved = load(llama), []
    split = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 3, "learning_rate": 1e38}
    with pytest.raises(CheckpointError) as error:
        trainer(
            model,
            objective(cross_entropy, model),
            tmp_path,
            rows(),
            save=lambda step, metrics, state: saved.append(step),
            save_steps=1,
            extra={"weight_decay": 1e5},
            **split,
        ).train()
    assert str(error.value) == (
        "the checkpoint of step 1 was not saved: 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight' "
        "contains non-finite values; earlier checkpoints are kept; lower training.learning_rate"
    )
    assert saved == []
