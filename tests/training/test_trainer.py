"""The loop around the objective: it stops in time, evaluates, counts and saves."""

import copy
import math

import pytest
import torch

from smolora_core.errors import TrainingError
from tests.support.small_run import Watch, cross_entropy, difference, load, objective, rows, trainer


@pytest.fixture
def model(llama):
    return load(llama)


def values(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_unchanged(model, before):
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def times(factor):
    """A loss of the whole model that goes wrong."""
    return lambda model, of: (model(input_ids=of["input_ids"]).logits.mean() ** 2 * factor, torch.tensor(1.0))


def without_slope(logits, targets):
    """Finite itself, with a gradient that is not."""
    return cross_entropy(logits, targets) + torch.sqrt(logits[:, 0] - logits[:, 0])


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        (times(math.inf), "model", "the loss is inf at step 1"),
        (times(math.nan), "model", "the loss is nan at step 1"),
        (without_slope, "token", "the gradient's norm is nan at step 1"),
    ],
)
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_numbers_that_are_not_finite_stop_the_run_before_the_step(tmp_path, model, loss, kind, message, max_grad_norm):
    before = values(model)
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    made = trainer(model, objective(loss, model, kind=kind), tmp_path, rows(), extra={"max_grad_norm": max_grad_norm}, **split)
    with pytest.raises(TrainingError) as error:
        made.train()
    assert str(error.value) == f"{message}; set model.dtype to float32; no weights were updated"
    assert_unchanged(model, before)


def test_activations_may_be_computed_twice(tmp_path, llama):
    watches = []
    for twice in (False, True):
        model, watch = load(llama), Watch()
        if twice:
            model.get_base_model().activation_checkpointing_enable()
        split = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 1}
        trainer(model, objective(cross_entropy, model), tmp_path, rows(), watch=watch, **split).train()
        watches.append(watch)
    assert difference(watches[1].gradients[0], watches[0].gradients[0]) < 1e-6


def test_training_changes_the_adapter_alone(tmp_path, model):
    before = values(model)
    trainer(model, objective(cross_entropy, model), tmp_path, rows(), max_steps=2).train()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_the_models_config_is_left_as_it_was(tmp_path, model):
    before = copy.deepcopy(model.config)
    trainer(model, objective(cross_entropy, model), tmp_path, rows(), held_out=rows(), max_steps=1).train()
    assert model.config.to_dict() == before.to_dict()


def test_a_step_is_evaluated_once(tmp_path, model):
    evaluated = []

    def counting(logits, targets):
        evaluated.append(torch.is_grad_enabled())
        return cross_entropy(logits, targets)

    made = trainer(model, objective(counting, model), tmp_path, held_out=rows(), per_device_eval_batch_size=8)
    assert made.evaluate_now() == made.evaluate_now()
    assert evaluated == [False]


def test_an_evaluation_is_the_mean_over_supervised_tokens(tmp_path, model):
    losses = []

    def recording(logits, targets):
        losses.append(cross_entropy(logits, targets))
        return losses[-1]

    made = trainer(model, objective(recording, model), tmp_path, held_out=rows(), per_device_eval_batch_size=3)
    assert made.evaluate() == {"eval_loss": pytest.approx(torch.cat(losses).mean().item())}


def test_batches_that_are_not_full_are_evaluated_whatever_training_does(tmp_path, model):
    made = trainer(model, objective(cross_entropy, model), tmp_path, rows(), rows(), extra={"dataloader_drop_last": True})
    whole = trainer(model, objective(cross_entropy, model), tmp_path, rows(), rows()).evaluate()
    made.args.per_device_eval_batch_size = 3
    assert made.evaluate() == pytest.approx(whole)


def test_weights_below_one_are_no_exception(tmp_path, model):
    def light(model, batch):
        return 0.02 * model(input_ids=batch["input_ids"]).logits.float().mean() ** 2 + 0.03, torch.tensor(0.01)

    made = trainer(model, objective(light, model, kind="model"), tmp_path, held_out=rows()[:1])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([rows()[0]["input_ids"]])).logits
    assert made.evaluate()["eval_loss"] == pytest.approx(2 * logits.mean().item() ** 2 + 3)


def test_tokens_are_counted_without_padding(tmp_path, model):
    made = trainer(model, objective(cross_entropy, model), tmp_path, rows(), num_train_epochs=1, gradient_accumulation_steps=2)
    made.train()
    assert made.position.tokens == sum(len(row["input_ids"]) for row in rows())


def test_checkpoints_are_committed_with_the_latest_metrics(tmp_path, model):
    saved, watch = [], Watch()
    made = trainer(
        model,
        objective(cross_entropy, model),
        tmp_path,
        rows(),
        held_out=rows(),
        save=lambda step, metrics, state: saved.append((step, metrics)),
        watch=watch,
        save_steps=1,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        num_train_epochs=2,
        eval_steps=1,
    )
    made.train()
    assert [step for step, _ in saved] == [1, 2]
    assert [metrics["loss"] for _, metrics in saved] == watch.losses
    assert saved[1][1]["eval_loss"] == made.evaluate_now()["eval_loss"] < saved[0][1]["eval_loss"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_computes_about_the_same(tmp_path, llama, dtype, autocast):
    """Autocast covers a model's forward, and the head and the loss are computed outside of it."""
    exact, half = Watch(), Watch()
    split = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 3}
    for watch, extra, number in ((exact, {}, "float32"), (half, {"bf16": autocast}, dtype)):
        model = load(llama, dtype=number)
        trainer(model, objective(cross_entropy, model), tmp_path, rows(), watch=watch, extra=extra, **split).train()
        assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert half.losses == pytest.approx(exact.losses, rel=1e-2)
    assert (half.losses == exact.losses) is (dtype == "float32" and not autocast)


def test_autocast_covers_the_head(tmp_path, model):
    rounded = []

    def recording(logits, targets):
        rounded.append(torch.equal(logits, logits.bfloat16().float()))
        return cross_entropy(logits, targets)

    for extra in ({}, {"bf16": True}):
        fresh = copy.deepcopy(model)
        trainer(fresh, objective(recording, fresh), tmp_path, rows()[:4], max_steps=1, extra=extra).train()
    assert rounded == [False, True]
