"""A run that is resumed from any of its steps ends as if it had never stopped, to the last bit."""

import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from smolora_core.batches.padding import IGNORED, Collator, pad
from smolora_core.training.callbacks import LogEvents
from smolora_plugins.learning.callback import LearningGuard
from tests.support.resumed import LENGTHS, STEPS, Stream, copied, disturb, dropping_out, end_of, files, make
from tests.support.small_run import rows

KINDS = {
    "shuffled": {},
    "workers": {"extra": {"dataloader_num_workers": 2}},
    "grouped by length": {"extra": {"train_sampling_strategy": "group_by_length"}},
    "in the data's order": {"extra": {"train_sampling_strategy": "sequential"}},
    "noise in embeddings": {"extra": {"neftune_noise_alpha": 5.0}},
    "another optimizer": {"extra": {"optim": "adafactor"}},
    "evaluated after every step": {"eval_steps": 1, "logging_steps": 4, "extra": {"data_seed": 5, "warmup_steps": 2}},
}


def assert_same_from_every_step(llama, tmp_path, make=make, **changes):
    whole = make(llama, tmp_path / "whole", **changes)
    expected = end_of(whole, whole.train())
    for step in range(1, expected.step + 1):
        again = make(llama, tmp_path / f"from-{step}", **changes)
        disturb()
        place = copied(tmp_path / "whole", tmp_path / f"from-{step}", step)
        found = end_of(again, again.train(resume_from=place))
        assert found == expected, f"from step {step}"
        for later in range(step + 1, expected.step + 1):
            assert files(tmp_path / f"from-{step}" / f"checkpoint-{later}") == files(tmp_path / "whole" / f"checkpoint-{later}")
    return expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_one_to_go_on_from(llama, tmp_path, kind):
    assert assert_same_from_every_step(llama, tmp_path, **KINDS[kind]).step == STEPS


class Draws(TrainerCallback):
    """A plugin that draws random numbers before the first epoch."""

    def on_train_begin(self, args, state, control, **more):
        torch.rand(3)


@pytest.mark.slow
def test_what_draws_random_numbers_before_an_epoch_does_not_matter(llama, tmp_path):
    def drawing(base, folder, **changes):
        made = make(base, folder, extra={"train_sampling_strategy": "group_by_length"}, **changes)
        made.add_callback(Draws())
        return made

    assert_same_from_every_step(llama, tmp_path, drawing)


@pytest.mark.slow
def test_streamed_rows_are_read_up_to_where_the_run_was(llama, tmp_path):
    """A pass is 7 micro-batches, and no step is the last of one: what is left goes into the next step."""

    assert assert_same_from_every_step(llama, tmp_path, train=Stream(), max_steps=7).step == 7


def test_a_stream_is_read_on_by_a_longer_run(llama, tmp_path):
    def streaming(folder, steps):
        extra = {"lr_scheduler_type": "constant"}
        return make(llama, tmp_path / folder, train=Stream(), max_steps=steps, held_out=(), extra=extra)

    whole = streaming("whole", 5)
    whole.train()
    streaming("short", 2).train()
    longer = streaming("longer", 5)
    longer.train(resume_from=tmp_path / "short" / "checkpoint-2")
    for name, each in whole.model.named_parameters():
        assert torch.equal(each, longer.model.get_parameter(name))


class Hiding:
    """A task that learns other tokens in each epoch."""

    def __init__(self):
        self.seeds = set()

    def collate(self, of, pad_token_id, seed=0):
        self.seeds.add(seed)
        hidden = [
            [IGNORED if random.Random(f"{seed} {token}").random() < 0.5 else token for token in row["labels"]] for row in of
        ]
        return pad([{**row, "labels": labels} for row, labels in zip(of, hidden, strict=True)], pad_token_id)


@pytest.mark.slow
def test_what_an_epoch_hides_is_hidden_again(llama, tmp_path):
    task = Hiding()

    def hiding(base, folder, **changes):
        made = make(base, folder, **changes)
        made.data_collator = Collator(task, 1, 42)
        return made

    assert_same_from_every_step(llama, tmp_path, hiding)
    assert len(task.seeds) == 2


def resumed(llama, tmp_path, step, first=None, **changes):
    """Resume a run of two epochs, which `first` is the options of, with other options."""
    make(llama, tmp_path, **(first or {})).train()
    return make(llama, tmp_path / "again", **changes), tmp_path / f"checkpoint-{step}"


def rates(made):
    return [entry["learning_rate"] for entry in made.state.log_history if "learning_rate" in entry]


@pytest.mark.parametrize("change", [{"learning_rate": 1e-3}, {"num_train_epochs": 3}, {"max_steps": 5}])
def test_a_changed_schedule_wins_from_the_next_step_on(llama, tmp_path, change):
    whole = make(llama, tmp_path / "whole", logging_steps=1, **change)
    whole.train()
    again, place = resumed(llama, tmp_path, 4, {"logging_steps": 1}, logging_steps=1, **change)
    again.train(resume_from=place)
    assert rates(again)[4:] == rates(whole)[4:]
    assert again.state.global_step == whole.state.global_step


def test_how_often_to_log_evaluate_and_save_says_the_new_config(llama, tmp_path):
    again, place = resumed(llama, tmp_path, 2, logging_steps=1, eval_steps=500, save_steps=500)
    again.train(resume_from=place)
    logged = [entry["step"] for entry in again.state.log_history if "loss" in entry]
    assert logged == [2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / "again").glob("checkpoint-*")] == ["checkpoint-6"]


@pytest.mark.parametrize("change", [{"max_steps": 4}, {"max_steps": 2}, {"num_train_epochs": 1}])
def test_a_run_that_is_long_enough_trains_nothing(llama, tmp_path, change):
    again, place = resumed(llama, tmp_path, 4, **change)
    again.train(resume_from=place)
    saved = load_file(place / "adapter_model.safetensors")
    trained = {name.replace(".default", ""): each for name, each in again.model.named_parameters() if each.requires_grad}
    assert again.state.global_step == 4
    assert saved.keys() == trained.keys()
    assert all(torch.equal(each, trained[name]) for name, each in saved.items())


def test_tokens_per_second_are_of_this_process(llama, tmp_path):
    again, place = resumed(llama, tmp_path, 5, logging_steps=1)
    events = []
    again.add_callback(LogEvents(lambda kind, **values: events.append((kind, values))))
    before = sum(len(row["input_ids"]) for row in rows(LENGTHS)) * 2
    again.train(resume_from=place)
    assert again.position.tokens == before
    assert [values["step"] for kind, values in events if kind == "log"] == [6]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_what_learns_is_not_spoken_of_after_a_resume(llama, tmp_path, step):
    again, place = resumed(llama, tmp_path, step)
    said = []
    again.add_callback(LearningGuard(said.append))
    again.train(resume_from=place)
    assert said == []


def test_what_does_not_learn_is_named_after_a_resume(llama, tmp_path):
    again, place = resumed(llama, tmp_path, 2, learning_rate=1e-30)
    said = []
    again.add_callback(LearningGuard(said.append))
    again.train(resume_from=place)
    assert [text.split(":")[0] for text in said] == ["8 of 8 trainable tensors have not changed in 3 steps"]


def test_what_was_looked_at_before_is_not_spoken_of_again(llama, tmp_path):
    again, place = resumed(llama, tmp_path, 3, learning_rate=1e-30)
    said = []
    again.add_callback(LearningGuard(said.append))
    again.train(resume_from=place)
    assert said == []


class Counting(TrainerCallback, ExportableState):
    """A plugin's callback that keeps a count."""

    def __init__(self):
        self.count = 0

    def on_step_end(self, args, state, control, **more):
        self.count += 1

    def state(self):
        return {"args": {}, "attributes": {"count": self.count}}


def test_a_callback_that_exports_its_state_has_it_again(llama, tmp_path):
    first, again, counting = make(llama, tmp_path), make(llama, tmp_path / "again"), Counting()
    first.add_callback(Counting())
    again.add_callback(counting)
    first.train()
    again.train(resume_from=tmp_path / "checkpoint-4")
    assert counting.count == STEPS


def test_transformers_reads_the_state_as_its_own(llama, tmp_path):
    made = make(llama, tmp_path, max_steps=2)
    made.train()
    assert TrainerState.load_from_json(tmp_path / "checkpoint-2" / "trainer_state.json").global_step == 2


def test_the_evaluation_before_training_is_remembered(llama, tmp_path):
    first = make(llama, tmp_path)
    before = first.evaluate_now()
    first.train()
    again = make(llama, tmp_path / "again", model=dropping_out(llama))
    again.train(resume_from=tmp_path / "checkpoint-3")
    assert again.position.metrics_before == before
