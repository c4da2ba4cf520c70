"""How often a run logs, evaluates and saves when that is left to it."""

import math

import pytest
from transformers import TrainerCallback

from smolora_core.training import cadence as module
from smolora_core.training.cadence import Cadence
from tests.support.resumed import dropping_out, make
from tests.support.small_run import cross_entropy, objective

AUTO = ("logging_steps", "eval_steps", "save_steps")


class Spending(TrainerCallback):
    """Takes a given time for every step, on a clock of its own."""

    def __init__(self, monkeypatch, seconds=1.0):
        self.now, self.seconds, self.saves = 1000.0, seconds, []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def on_substep_end(self, *given, **named):
        self.now += self.seconds

    def on_save(self, *given, **named):
        self.saves.append(self.now)


def run(llama, folder, monkeypatch, steps, *, evaluation=0.0, seconds=1.0, auto=AUTO, resume=None, **changes):
    """Train with steps of two seconds on the clock (they have two pauses between micro-batches), and evaluations of others."""
    clock = Spending(monkeypatch, seconds)
    model = dropping_out(llama)

    def measure(logits, targets):
        if not logits.requires_grad:
            clock.now += evaluation / 3
        return cross_entropy(logits, targets)

    changes |= {"measure": objective(measure, model), "max_steps": steps, "num_train_epochs": 99}
    made = make(llama, folder, model=model, cadence=Cadence(auto, changes.pop("max_seconds", math.inf)), **changes)
    made.add_callback(clock)
    if resume is None:
        made.evaluate_now()
    made.train(resume_from=resume)
    history = made.state.log_history
    logged = [entry["step"] for entry in history if "loss" in entry]
    evaluated = [entry["step"] for entry in history if "eval_loss" in entry]
    saved = sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))
    return made, logged, evaluated, saved


def test_a_run_of_a_few_steps_logs_and_evaluates_each(llama, tmp_path, monkeypatch):
    _, logged, evaluated, _ = run(llama, tmp_path, monkeypatch, 6)
    assert logged == [1, 2, 3, 4, 5, 6]
    assert evaluated == [0, 1, 2, 3, 4, 5, 6]


def test_a_longer_run_logs_about_twenty_times_and_evaluates_about_ten(llama, tmp_path, monkeypatch):
    _, logged, evaluated, _ = run(llama, tmp_path, monkeypatch, 90)
    assert logged == [1, *range(4, 90, 4), 90]
    assert evaluated == list(range(0, 91, 9))


def test_evaluations_take_a_tenth_of_the_time(llama, tmp_path, monkeypatch):
    """The steps that are timed take two seconds, and none: the last one of an epoch is a single micro-batch."""
    made, _, evaluated, _ = run(llama, tmp_path, monkeypatch, 60, evaluation=3.0)
    assert made.state.eval_steps == pytest.approx(30, abs=1)
    assert evaluated == [0, made.state.eval_steps, 60]


def test_what_was_measured_holds_after_a_resume(llama, tmp_path, monkeypatch):
    """Also if the machine is much faster then."""
    made, _, _, _ = run(llama, tmp_path, monkeypatch, 40, evaluation=3.0, auto=("eval_steps",))
    again, *_ = run(
        llama,
        tmp_path / "again",
        monkeypatch,
        40,
        evaluation=0.1,
        seconds=50.0,
        auto=("eval_steps",),
        resume=tmp_path / "checkpoint-9",
    )
    assert again.state.eval_steps == made.state.eval_steps > 4


def test_a_kill_costs_at_most_five_minutes(llama, tmp_path, monkeypatch):
    made, _, _, saved = run(llama, tmp_path, monkeypatch, 40, seconds=20.0, final_adapter="last")
    times = [each - 1000.0 for each in made.callbacks[-1].saves]
    assert len(times) == len(saved) > 3
    assert all(200 < later - earlier <= 300 for earlier, later in zip([0.0, *times], times[:-1], strict=False))
    assert saved[-1] == 40


def test_numbers_that_are_given_count(llama, tmp_path, monkeypatch):
    _, logged, evaluated, saved = run(llama, tmp_path, monkeypatch, 7, auto=())
    assert logged == [2, 4, 6]
    assert evaluated == [0, 3, 6, 7]
    assert saved == [1, 2, 3, 4, 5, 6, 7]


def test_time_that_is_over_ends_training_with_a_checkpoint(llama, tmp_path, monkeypatch):
    made, _, _, saved = run(llama, tmp_path, monkeypatch, 50, auto=AUTO, max_seconds=9.0)
    assert made.cadence.is_out_of_time
    assert made.state.global_step < 20
    assert saved[-1] == made.state.global_step
