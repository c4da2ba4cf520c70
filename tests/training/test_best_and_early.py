"""The best adapter by held-out rows is what a run keeps, and patience that runs out ends it, over any resume.

`scripted` runs are evaluated after each step, with the losses that a test gives.
"""

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback

import smolora_core
from smolora_core.checkpoints.retention import Keep
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.config.dump import plain
from smolora_core.errors import ConfigError
from smolora_core.training.arguments import make_arguments
from smolora_core.training.cadence import Cadence
from tests.support.injector import Injected, fail_at
from tests.support.runs import config_of, events, rows_in
from tests.support.scripted import Scripted, scripted, steps_in, values_of, while_running


def assert_same(adapter, expected):
    assert adapter.keys() == expected.keys()
    assert all(torch.equal(each, expected[name]) for name, each in adapter.items())


def adapter_of(model):
    return {name.replace(".default", ""): each.data for name, each in model.named_parameters() if each.requires_grad}


def saved(place):
    return load_file(place / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3, 1, 2], 2),
        ([3, 2, 1], 3),
        ([2, 1, 1, 3], 2),
        ([math.nan, 5, 4, math.nan], 3),
        ([4, math.nan, 5], 1),
        ([math.inf, 5, math.nan], 2),
        ([math.nan, math.inf], None),
    ],
    ids=["between", "last", "tie", "nan first", "nan later", "infinite", "none"],
)
def test_the_best_is_the_first_of_the_lowest_that_are_finite(llama, tmp_path, losses, best):
    made = scripted(llama, tmp_path, losses)
    made.train()
    assert made.state.best_global_step == best
    assert made.state.best_metric == (losses[best - 1] if best else None)
    assert made.kept_step == (best if best != len(losses) else None)


def test_a_metric_may_be_better_if_it_is_greater(llama, tmp_path):
    made = scripted(llama, tmp_path, [1, 3, 3, 2], extra={"greater_is_better": True})
    made.train()
    assert (made.state.best_global_step, made.state.best_metric) == (2, 3)


def test_the_model_and_its_metrics_are_the_best_ones_at_the_end(llama, tmp_path):
    made = scripted(llama, tmp_path, [3, 1, 2])
    made.train()
    assert_same(adapter_of(made.model), saved(tmp_path / "checkpoint-2"))
    assert made.evaluate_now() == {"eval_loss": 1}
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize(("seconds", "kept"), [(12.0, 2), (7.0, None)], ids=["in the last step", "before"])
def test_the_best_is_kept_of_a_run_whose_time_is_over_after_its_last_step(llama, tmp_path, monkeypatch, seconds, kept):
    now = [0.0]
    monkeypatch.setattr("smolora_core.training.cadence.time.monotonic", lambda: now[0])
    made = scripted(llama, tmp_path, [3, 1, 2], cadence=Cadence(max_seconds=seconds))
    made.add_callback(while_running("on_step_begin", lambda args, state, control, **more: now.append(now.pop() + 5.0)))
    made.train()
    assert made.kept_step == kept
    assert made.cadence.is_out_of_time == (kept is None)


def test_the_last_adapter_is_kept_if_that_is_asked_for(llama, tmp_path):
    made = scripted(llama, tmp_path, [3, 1, 2], final_adapter="last")
    made.train()
    assert_same(adapter_of(made.model), saved(tmp_path / "checkpoint-3"))
    assert (made.kept_step, made.evaluate_now()) == (None, {"eval_loss": 2})
    assert steps_in(tmp_path) == [3]


@pytest.mark.parametrize(
    ("losses", "last", "best"),
    [
        ([3, 2, 2.5, 2.6, 1, 1], 4, 2),
        ([3, 4, 2, 4, 4, 1], 5, 3),
        ([3, 3, 3, 1], 3, 1),
        ([3, math.nan, math.nan, 1], 3, 1),
        ([4, 3, 3.5, 2], 4, 4),
    ],
    ids=["runs out", "is reset", "tie", "nan", "suffices"],
)
def test_patience_counts_evaluations_without_improvement(llama, tmp_path, losses, last, best):
    made = scripted(llama, tmp_path, losses, patience=2)
    made.train()
    assert (made.state.global_step, made.state.best_global_step) == (last, best)
    assert_same(adapter_of(made.model), saved(tmp_path / f"checkpoint-{best}"))


LOSSES = [3, 2, 2.5, 1.5, 1.6, 1.7, 1]
"""With a patience of two the run ends after step 6, and keeps step 4."""


def progress(made):
    patience = next(each for each in made.callbacks if isinstance(each, EarlyStoppingCallback))
    best = (made.state.best_global_step, made.state.best_metric, made.kept_step)
    return made.state.global_step, best, patience.early_stopping_patience_counter, values_of(made, "eval_loss")


def patient(llama, folder, **changes):
    return scripted(llama, folder, LOSSES, patience=2, save_steps=1, **changes)


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patient")
    made = patient(llama, folder)
    made.train()
    assert (made.state.global_step, made.kept_step) == (6, 4)
    return folder, made


@pytest.mark.parametrize("step", range(1, 7))
def test_best_and_patience_go_on_after_a_resume(llama, whole, step):
    """From the last step nothing is trained: its patience has run out already."""
    folder, made = whole
    again = patient(llama, folder)
    again.train(resume_from=folder / f"checkpoint-{step}")
    assert progress(again) == progress(made)
    assert_same(adapter_of(again.model), adapter_of(made.model))


@pytest.mark.parametrize("hook", ["on_step_begin", "on_step_end", "on_evaluate", "on_save"])
@pytest.mark.parametrize("step", [4, 5])
def test_best_and_patience_go_on_after_a_run_was_killed(llama, tmp_path, whole, hook, step):
    first = patient(llama, tmp_path)
    first.add_callback(fail_at(step, hook, "raise"))
    with pytest.raises(Injected):
        first.train()
    again = patient(llama, tmp_path)
    again.train(resume_from=tmp_path / f"checkpoint-{steps_in(tmp_path)[-1]}")
    assert progress(again) == progress(whole[1])
    assert_same(adapter_of(again.model), adapter_of(whole[1].model))


def test_more_patience_trains_on_after_a_resume(llama, tmp_path):
    scripted(llama, tmp_path, LOSSES, patience=2).train()
    again = scripted(llama, tmp_path, LOSSES, patience=3)
    again.train(resume_from=tmp_path / "checkpoint-6")
    assert (again.state.global_step, again.state.best_global_step) == (7, 7)


def test_a_best_adapter_that_cannot_be_saved_is_not_the_best(llama, tmp_path):
    """Where the disk refuses a part of it, the one that is there stays the best, and its metrics are reported."""
    made = scripted(llama, tmp_path, [2, 1, 3])
    commit = made.save

    def save(step, metrics, write_state):
        place = commit(step, metrics, write_state)
        return None if step == 2 else place

    made.save = save
    made.train()
    assert (made.state.best_global_step, made.state.best_metric, made.kept_step) == (1, 2, 1)
    assert made.evaluate_now() == {"eval_loss": 2}


@pytest.mark.parametrize(
    ("metric", "given", "greater"),
    [("loss", None, False), ("accuracy", None, True), ("accuracy", False, False), ("loss", True, True)],
)
def test_training_and_retention_agree_which_is_better(tmp_path, metric, given, greater):
    extra = {} if given is None else {"greater_is_better": given}
    values = config_of(tmp_path, tmp_path, tmp_path, training={"metric": metric, "extra": extra})
    config = resolve(Document(values, {})).config
    arguments = make_arguments(config, tmp_path, torch.device("cpu"), evaluates=True)
    assert (arguments.greater_is_better, Keep.of(plain(config)).greater) == (greater, greater)


def train(llama, folder, losses, resume="never", **changes):
    """Run a whole config whose held-out losses are scripted."""
    folder.mkdir(exist_ok=True)
    training = {"max_steps": len(losses), "eval_steps": 1, **changes.pop("training", {})}
    config = config_of(llama, rows_in(folder), folder / "run", training=training, loss="scripted", **changes)
    overrides = () if resume == "never" else ("loss",)
    return smolora_core.train(config, resume=resume, overrides=overrides, plugins=(Scripted(losses),))


@pytest.mark.parametrize("save_steps", [1, 2, 500])
def test_the_best_checkpoint_is_never_pruned(llama, tmp_path, save_steps):
    found = train(llama, tmp_path, [3, 1, 2, 2, 2, 2], checkpoints={"save_steps": save_steps, "keep": 2})
    kept = steps_in(tmp_path / "run")
    assert kept[-1] == 6
    assert 2 in kept
    assert found.metrics["eval_loss"] == 1
    assert_same(saved(tmp_path / "run" / "adapter"), saved(tmp_path / "run" / "checkpoint-2"))
    assert_same(adapter_of(found.model), saved(tmp_path / "run" / "adapter"))
    (told,) = events(tmp_path / "run", "best")
    assert told["text"] == (
        "the adapter of step 2 of 6 is kept, because its held-out loss is the best: 1, against 2 after the last step"
    )


def test_the_best_checkpoint_is_that_of_the_steps_that_led_to_the_last_one(llama, tmp_path):
    """Step 7 of the first attempt is better than any of the second, which leaves the first at step 2."""
    train(llama, tmp_path, [9, 8, 7, 6, 6, 6, 0], checkpoints={"save_steps": 1, "keep": 9})
    found = train(llama, tmp_path, [9, 8, 3, 4, 4], "checkpoint-2", checkpoints={"save_steps": 1, "keep": 2})
    assert found.metrics["eval_loss"] == 3
    assert_same(saved(tmp_path / "run" / "adapter"), saved(tmp_path / "run" / "checkpoint-3"))


def test_fewer_steps_than_between_saves_leave_a_checkpoint_and_a_best(llama, tmp_path):
    found = train(llama, tmp_path, [1, 2], checkpoints={"save_steps": 500})
    assert steps_in(tmp_path / "run") == [1, 2]
    assert found.metrics["eval_loss"] == 1


def test_a_run_that_ends_early_keeps_its_last_step_and_its_best(llama, tmp_path):
    training = {"early_stopping": 2}
    found = train(llama, tmp_path, [3, 1, 2, 2, 2], training=training, checkpoints={"save_steps": 500})
    assert (found.steps, steps_in(tmp_path / "run"), found.metrics["eval_loss"]) == (4, [1, 2, 4], 1)
    note = "training ended at step 4 of 5: loss did not improve in 2 evaluations"
    assert note in [each["text"] for each in events(tmp_path / "run", "note")]
    again = train(llama, tmp_path, [3, 1, 2, 2, 2], "auto", training=training)
    assert (again.steps, again.metrics["eval_loss"]) == (4, 1)


def test_the_last_adapter_of_a_run_that_ends_early_is_saved(llama, tmp_path):
    training = {"early_stopping": 2, "final_adapter": "last"}
    found = train(llama, tmp_path, [3, 1, 2, 2, 2], training=training, checkpoints={"save_steps": 500})
    assert (found.steps, steps_in(tmp_path / "run"), found.metrics["eval_loss"]) == (4, [4], 2)
    assert_same(saved(tmp_path / "run" / "adapter"), saved(tmp_path / "run" / "checkpoint-4"))


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_an_unknown_metric_is_refused_before_training_with_those_that_exist(llama, tmp_path, metric):
    with pytest.raises(ConfigError) as error:
        train(llama, tmp_path, [1], training={"metric": metric})
    assert str(error.value) == (
        f"training.metric: the evaluation has no metric {metric!r}; choose one of loss, perplexity, token_accuracy"
    )
    assert steps_in(tmp_path / "run") == []
    assert not events(tmp_path / "run", "log")


def test_the_better_direction_of_a_metric_is_known_or_asked_for(llama, tmp_path):
    with pytest.raises(ConfigError) as error:
        train(llama, tmp_path, [1], training={"metric": "calibration"})
    assert str(error.value) == (
        "given from Python nothing is known of the metric 'calibration'; set training.extra.greater_is_better to true or false"
    )
