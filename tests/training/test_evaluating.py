"""Evaluations count every held-out row once, and leave training as it was."""

import math
import os
import random
import signal

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from smolora_core.batches.padding import IGNORED
from smolora_core.training.objective import make_objective
from tests.support.resumed import disturb, dropping_out, end_of, files, make
from tests.support.scripted import steps_in, values_of
from tests.support.small_memory import Small
from tests.support.small_run import cross_entropy, difference, load, objective, registered, rows, trainer


def observed(model, folder, count, size):
    """Evaluate so many rows; return the loss, and the row and the target of each position that the metrics got."""
    measure = make_objective(
        registered(cross_entropy), cross_entropy, model, 2**20, observe=lambda _, targets: targets[:, None]
    )
    made, seen = trainer(model, measure, folder, held_out=rows()[:count], per_device_eval_batch_size=size), []

    def metrics(targets, numbers):
        seen.extend(zip(numbers.tolist(), targets[:, 0].tolist(), strict=True))
        return {"positions": len(targets)}

    made.compute_task_metrics = metrics
    found = made.evaluate()
    assert found["eval_positions"] == len(seen)
    return found["eval_loss"], seen


def supervised(count):
    return [(number, label) for number, row in enumerate(rows()[:count]) for label in row["labels"][1:] if label >= 0]


@pytest.mark.parametrize("count", [1, 7, 8])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_every_held_out_row_counts_once(llama, tmp_path, count, size):
    """In the loss, and in the metrics, which get the rows' numbers. On two ranks: tests/training/test_same_step.py."""
    model = load(llama)
    loss, seen = observed(model, tmp_path, count, size)
    assert seen == supervised(count)
    assert loss == pytest.approx(observed(model, tmp_path, count, 8)[0])


def test_rows_with_nothing_to_predict_have_no_loss_and_are_not_the_best(llama, tmp_path):
    unlabelled = [{**row, "labels": [IGNORED] * len(row["labels"])} for row in rows()[:3]]
    made = make(llama, tmp_path, held_out=unlabelled, eval_steps=1, save_steps=500, max_steps=2)
    made.train()
    assert all(math.isnan(loss) for loss in values_of(made, "eval_loss").values())
    assert (made.state.best_metric, steps_in(tmp_path)) == (None, [2])


@pytest.mark.parametrize("room", [1, 3])
def test_rows_that_did_not_fit_in_memory_count_once(llama, tmp_path, room):
    model = load(llama)
    loss, seen = observed(model, tmp_path, 7, 7)
    Small(model, room, training=False)
    assert observed(model, tmp_path, 7, 7) == (pytest.approx(loss), seen)


def drawn():
    """What the generators would give next."""
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    values = random.random(), np.random.rand(), torch.rand(1).item()
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    return values


class Around(TrainerCallback):
    """Looks at what an evaluation may disturb, just before and just after each."""

    def __init__(self):
        self.before, self.after = [], []

    def _look(self, args, state, control, model=None, **more):
        modes = [each.training for each in model.modules()]
        return modes, drawn(), [each.grad for each in model.parameters()], model.config.to_dict()

    def on_step_end(self, *given, **named):
        self.before.append(self._look(*given, **named))

    def on_evaluate(self, *given, **named):
        self.after.append(self._look(*given, **named))


def test_mode_generators_gradients_and_config_are_as_before(llama, tmp_path):
    made, around = make(llama, tmp_path, eval_steps=1), Around()
    made.add_callback(around)
    made.train()
    assert around.before == around.after
    assert len(around.after) == 6
    assert all(all(modes) for modes, *_ in around.after)
    assert all(gradient is None for _, _, gradients, _ in around.after for gradient in gradients)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_as_before_outside_of_training_too(llama, tmp_path, training):
    made = make(llama, tmp_path)
    made.model.train(training)
    made.evaluate()
    assert {each.training for each in made.model.modules()} == {training}


KINDS = {"plain": {}, "workers": {"dataloader_num_workers": 1}, "checkpointing": {}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_evaluations_trains_as_one_without_to_the_last_bit(llama, tmp_path, kind):
    ends = []
    for held_out in ((), rows()[:5]):
        made = make(llama, tmp_path, held_out=held_out, eval_steps=1, final_adapter="last", save_steps=500, extra=KINDS[kind])
        if kind == "checkpointing":
            made.model.get_base_model().activation_checkpointing_enable()
        if held_out:
            made.evaluate_now()
        made.train()
        ends.append(files(tmp_path / "checkpoint-6"))
    assert ends[0] == ends[1]


def test_an_evaluation_that_runs_out_of_memory_halves_its_batch_and_goes_on(llama, tmp_path):
    """The next evaluation does not try that size again."""
    expected = make(llama, tmp_path / "whole", per_device_eval_batch_size=5)
    expected.train()
    model, told = dropping_out(llama), []
    memory = Small(model, 2, training=False)
    made = make(llama, tmp_path / "small", model=model, per_device_eval_batch_size=5)
    made.recovery.emit = lambda kind, **values: told.append((values["step"], values["rows"])) if "rows" in values else None
    before = memory.passes
    made.train()
    assert told == [(3, 5), (3, 3)]
    assert memory.passes - before == 5 + 3
    assert values_of(made, "eval_loss") == pytest.approx(values_of(expected, "eval_loss"))
    theirs, ours = ({name: each.detach() for name, each in of.named_parameters()} for of in (expected.model, model))
    assert difference(ours, theirs) < 1e-5


@pytest.mark.parametrize("step", [3, 6])
def test_an_interrupt_in_an_evaluation_ends_with_a_checkpoint_and_the_resume_evaluates(llama, tmp_path, step):
    whole = make(llama, tmp_path / "whole", save_steps=500)
    expected = end_of(whole, whole.train())
    model = dropping_out(llama)

    def interrupted(logits, targets):
        if not torch.is_grad_enabled() and made.state.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return cross_entropy(logits, targets)

    made = make(llama, tmp_path / "parts", save_steps=500, model=model, measure=objective(interrupted, model))
    made.train()
    assert (made.stopped_by, made.state.global_step, steps_in(tmp_path / "parts")[-1]) == (signal.SIGINT, step, step)
    again = make(llama, tmp_path / "parts", save_steps=500)
    disturb()
    assert end_of(again, again.train(resume_from=tmp_path / "parts" / f"checkpoint-{step}")) == expected
