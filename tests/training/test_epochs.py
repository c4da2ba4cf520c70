"""Epochs and their rows: every row once, in a new order each time, however often and wherever a run is resumed."""

import math

import pytest
import torch

from smolora_core.errors import TrainingError
from tests.support.changing_ranks import Rows
from tests.support.injector import Injected, fail_at
from tests.support.resumed import LENGTHS, disturb, end_of, make
from tests.support.scripted import steps_in, values_of, while_running
from tests.support.small_run import Watch, batch, cross_entropy, difference, gradients, load, objective, rows, trainer

PER_EPOCH = 3
"""Steps of `make`'s epochs: two of six rows and one of the last."""


def recorded(llama, folder, resume=None, **changes):
    """Train, and return the loop and the rows of each step."""
    made, kept = make(llama, folder, **{"num_train_epochs": 3, **changes}), Rows()
    made.data_collator = made.eval_collator = kept.collate
    made.add_callback(kept)
    disturb()
    made.train(resume_from=resume)
    return made, kept.rows


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    made, trained = recorded(llama, folder, held_out=())
    return folder, made, trained


def test_every_epoch_has_every_row_once_in_an_order_of_its_own(whole):
    _, _, trained = whole
    epochs = [[row for step in range(first, first + PER_EPOCH) for row in trained[step]] for first in (1, 4, 7)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(len(LENGTHS)))] * 3
    assert len(set(map(tuple, epochs))) == 3


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 7])
def test_a_resume_trains_the_rows_that_were_left_of_its_epoch_and_those_of_later_ones(llama, tmp_path, whole, step):
    """Steps 3 and 6 end an epoch."""
    folder, _, trained = whole
    again, found = recorded(llama, tmp_path, folder / f"checkpoint-{step}", held_out=())
    assert found == {later: trained[later] for later in range(step + 1, 10)}
    assert values_of(again, "epoch") == pytest.approx({2: 12 / 13, 4: 19 / 13, 6: 2, 8: 2 + 12 / 13, 9: 3})


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
@pytest.mark.parametrize("drops_last", [False, True])
@pytest.mark.parametrize("taken", [1, 2, 4, 5])
def test_steps_of_another_size_after_a_resume_leave_no_row_untrained(llama, tmp_path, taken, drops_last, strategy):
    """Twelve rows make three steps of four; after one, there are eleven rows left, which make another three."""
    extra = {"dataloader_drop_last": drops_last, "train_sampling_strategy": strategy}
    twelve = {"train": rows(LENGTHS[:12]), "held_out": (), "extra": extra}
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    _, first = recorded(llama, tmp_path, max_steps=taken, **split, **twelve)
    split["gradient_accumulation_steps"] = 4
    _, later = recorded(llama, tmp_path, tmp_path / f"checkpoint-{taken}", num_train_epochs=2, **split, **twelve)
    trained = [row for step in [*first.values(), *later.values()] for row in step]
    dropped = (12 - taken) % 4 if drops_last else 0
    assert len(set(trained[: 12 - dropped])) == 12 - dropped
    assert sorted(trained[12 - dropped :]) == list(range(12))


def test_a_step_whose_accumulation_was_interrupted_is_taken_again(llama, tmp_path):
    """The one that is lost has two micro-batches, and the checkpoint is that of the step before."""
    whole = make(llama, tmp_path / "whole")
    expected = end_of(whole, whole.train())
    first = make(llama, tmp_path / "parts")
    first.add_callback(fail_at(5, "on_substep_end", "raise"))
    with pytest.raises(Injected):
        first.train()
    again = make(llama, tmp_path / "parts")
    assert end_of(again, again.train(resume_from=tmp_path / "parts" / "checkpoint-4")) == expected


def test_resuming_ten_times_ends_where_one_run_ends(llama, tmp_path):
    options = {"num_train_epochs": 4, "save_steps": 500, "final_adapter": "last"}
    whole = make(llama, tmp_path / "whole", **options)
    expected = end_of(whole, whole.train())
    parts, place = tmp_path / "parts", None
    for step in range(1, 12):
        made = make(llama, parts, **options)
        made.add_callback(fail_at(step, "on_step_end", "SIGTERM"))
        disturb()
        made.train(resume_from=place)
        assert (made.state.global_step, made.stopped_by is not None) == (step, True)
        place = parts / f"checkpoint-{step}"
    last = make(llama, parts, **options)
    assert end_of(last, last.train(resume_from=place)) == expected
    assert steps_in(parts) == list(range(1, 13))


@pytest.mark.parametrize("save_steps", [1, 500])
def test_a_callback_may_end_an_epoch(llama, tmp_path, save_steps):
    """The next one begins with its first step, as for Trainer, also after a resume."""
    epochs = {}

    def stop(args, state, control, **more):
        epochs[state.global_step] = state.epoch
        control.should_epoch_stop = state.global_step == 1

    def run(resume=None):
        made = make(llama, tmp_path, save_steps=save_steps, held_out=(), max_steps=4)
        made.add_callback(while_running("on_step_end", stop))
        made.train(resume_from=resume)

    run()
    expected = {1: 6 / 13, 2: 1 + 6 / 13, 3: 1 + 12 / 13, 4: 2}
    assert epochs == pytest.approx(expected)
    if save_steps == 1:
        epochs.clear()
        run(tmp_path / "checkpoint-1")
        assert epochs == pytest.approx({step: expected[step] for step in (2, 3, 4)})


def test_fewer_micro_batches_than_a_step_accumulates_are_a_step_of_their_own(llama, tmp_path):
    """Three rows, accumulated four times, are a step an epoch; it is the mean of three, and leaves nothing to the next one."""
    model, watch = load(llama), Watch()
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "learning_rate": 1e-30, "num_train_epochs": 2}
    made = trainer(model, objective(cross_entropy, model), tmp_path, rows()[:3], watch=watch, **split)
    made.train()
    alone = load(llama)
    found = objective(cross_entropy, alone)(alone, batch(rows()[:3]))
    (found.sum / found.weight).backward()
    assert made.state.global_step == len(watch.gradients) == 2
    assert all(difference(each, gradients(alone)) < 1e-6 for each in watch.gradients)
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize(
    ("count", "changes", "steps"),
    [
        (1, {"num_train_epochs": 2}, 2),
        (1, {"max_steps": 5}, 5),
        (13, {"max_steps": 1}, 1),
        (13, {"max_steps": 8, "num_train_epochs": 1}, 8),
        (13, {"num_train_epochs": 0.1}, 1),
        (13, {"num_train_epochs": 1.5}, 5),
        (13, {"num_train_epochs": 2, "extra": {"dataloader_drop_last": True}}, 4),
    ],
    ids=["one row", "one row again and again", "one step", "beyond the data", "part of an epoch", "a half", "whole steps only"],
)
def test_a_run_ends_after_its_steps(llama, tmp_path, count, changes, steps):
    made, trained = recorded(llama, tmp_path, train=rows(LENGTHS)[:count], held_out=(), save_steps=500, **changes)
    assert (made.state.global_step, made.state.max_steps) == (steps, steps)
    assert all(trained.values())
    assert steps_in(tmp_path) == [steps]
    assert math.isfinite(made.state.log_history[-1]["train_loss"])


def test_an_epoch_that_drops_every_row_is_refused_in_one_line(llama, tmp_path):
    made = make(llama, tmp_path, train=rows(LENGTHS)[:5], extra={"dataloader_drop_last": True})
    with pytest.raises(TrainingError) as error:
        made.train()
    assert str(error.value) == "5 rows do not fill an optimizer step of 6; lower the batch size"


class Drained(torch.utils.data.IterableDataset):
    """A stream that has rows in some passes only."""

    def __init__(self, *passes):
        self._left = list(passes)

    def __iter__(self):
        return iter(rows(LENGTHS) if self._left and self._left.pop(0) else [])


@pytest.mark.parametrize(("passes", "steps"), [((), 0), ((True,), 3), ((True, True), 6)])
def test_a_pass_without_rows_ends_the_run_and_says_so(llama, tmp_path, passes, steps):
    said = []
    made = make(llama, tmp_path, train=Drained(*passes), max_steps=9, held_out=(), warn=said.append, save_steps=500)
    made.train()
    assert made.state.global_step == steps
    assert said == [f"epoch {len(passes)} has no rows; training ends at step {steps}"]
    assert steps_in(tmp_path) == ([steps] if steps else [])


def test_a_loop_trains_again_from_the_start(llama, tmp_path):
    """As after a call of `train` in a notebook that is run twice; only the adapter has moved on."""
    made = make(llama, tmp_path, save_steps=500, held_out=())
    for _ in range(2):
        for place in tmp_path.glob("checkpoint-*"):
            place.rename(tmp_path / f"old-{place.name}")
        made.train()
        assert (made.state.global_step, steps_in(tmp_path)) == (6, [6])
        assert list(values_of(made, "loss")) == [2, 4, 6]
