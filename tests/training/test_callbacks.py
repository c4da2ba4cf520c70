"""What a run tells of its training: events, and finished steps to memory strategies."""

import time
from types import SimpleNamespace

import pytest
import torch

from smolora_core.plugins import Origin, Tier
from smolora_core.training.callbacks import LogEvents, StepCallback
from smolora_core.training.memory import Strategies
from tests.support.small_run import ACME, Watch, cross_entropy, load, objective, rows, trainer

OTHER = Origin("other", Tier.THIRD_PARTY, "other", "2.0")


class Forgetful:
    """A strategy with two of the methods there are."""

    def __init__(self):
        self.told = []

    def load_kwargs(self, run):
        return {"run": run}

    def step_finished(self, step, run):
        self.told.append((step, run))


class Failing:
    def model_ready(self, model, run):
        raise ZeroDivisionError("no")


def test_the_log_becomes_events(tmp_path, llama):
    model, events, watch = load(llama), [], Watch()
    made = trainer(
        model,
        objective(cross_entropy, model),
        tmp_path,
        rows(),
        held_out=rows(),
        watch=watch,
        max_steps=2,
        eval_steps=2,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
    )
    made.add_callback(LogEvents(lambda kind, **values: events.append((kind, values))))
    made.evaluate_now()
    made.train()
    assert [(kind, values["step"]) for kind, values in events] == [
        *[("eval", 0), ("step", 0), ("log", 1), ("log", 2), ("eval", 2)]
    ]
    assert [values["loss"] for kind, values in events if kind == "log"] == watch.losses
    first = events[2][1]
    assert (first["steps"], first["epoch"]) == (2, 1.0)
    assert first["tokens_per_second"] > 0 and first["grad_norm"] > 0 and first["learning_rate"] == 1e-2


def test_evaluations_and_saves_take_none_of_the_time_of_training(tmp_path, llama):
    def slow_to_evaluate(logits, targets):
        time.sleep(0 if torch.is_grad_enabled() else 0.5)
        return cross_entropy(logits, targets)

    model, rates = load(llama), []
    made = trainer(
        model,
        objective(slow_to_evaluate, model),
        tmp_path,
        rows(),
        held_out=rows(),
        save=lambda step, metrics, state: time.sleep(0.5) or tmp_path,
        max_steps=2,
        eval_steps=1,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        save_steps=1,
    )
    made.add_callback(LogEvents(lambda kind, **values: rates.append(values.get("tokens_per_second"))))
    made.train()
    tokens = sum(len(row["input_ids"]) for row in rows())
    assert [tokens / rate < 0.5 for rate in rates if rate] == [True, True]


def test_strategies_hear_of_every_optimizer_step(tmp_path, llama):
    model, strategy = load(llama), Forgetful()
    made = trainer(model, objective(cross_entropy, model), tmp_path, rows(), max_steps=2, gradient_accumulation_steps=1)
    made.add_callback(StepCallback(Strategies(((ACME, strategy),), "the run")))
    made.train()
    assert strategy.told == [(1, "the run"), (2, "the run")]


def test_a_strategy_has_the_methods_it_needs():
    run = SimpleNamespace(warn=print)
    strategies = Strategies(((ACME, Forgetful()), (OTHER, object())), run)
    strategies.model_ready(object())
    with strategies.released():
        pass
    assert strategies.load_kwargs() == {"run": run}


def test_an_error_of_a_strategy_says_whose_it_is():
    with pytest.raises(ZeroDivisionError) as error:
        Strategies(((OTHER, Failing()),), None).model_ready(object())
    assert error.value.__notes__ == ["raised by plugin 'other' (other 2.0) while running model_ready"]
