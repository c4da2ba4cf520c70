"""Micro-batches of a budget of tokens hold every row once, are full, and are drawn again exactly."""

import json
import random

import pytest
from datasets import Dataset

from smolora_core import ConfigError, train
from smolora_core.batches.token_budget import fill_micro_batches, token_counts
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.training.arguments import conflicting_batch_sizes, streaming_conflicts
from smolora_core.training.order import RowOrder
from tests.support.resumed import LENGTHS, disturb, end_of, make
from tests.support.small_run import Watch, cross_entropy, difference, load, objective, one_step, rows, trainer

RNG = random.Random(0)
MANY = [RNG.randint(1, 40) + RNG.randint(0, 1) * RNG.randint(0, 60) for _ in range(3000)]


def order(of, budget, per_step):
    """The order of rows whose padded micro-batches are filled up to a budget, so many of them a step."""
    filled = fill_micro_batches([len(row["input_ids"]) for row in of], budget, 42, padded=True)
    return RowOrder(count=len(filled), per_step=per_step, seed=42, filled=filled)


def flat(micro_batches):
    return [row for some in micro_batches for row in some]


@pytest.mark.parametrize("padded", [False, True])
def test_every_row_is_in_one_micro_batch_and_none_is_too_large(padded):
    found = fill_micro_batches(MANY, 100, 42, padded=padded)
    assert sorted(flat(found)) == list(range(3000))
    lengths = [[MANY[row] for row in some] for some in found]
    assert max(len(each) * max(each) if padded else sum(each) for each in lengths) <= 100


@pytest.mark.parametrize(("padded", "full"), [(False, 0.97), (True, 0.9)])
def test_micro_batches_are_full(padded, full):
    assert sum(MANY) / (500 * len(fill_micro_batches(MANY, 500, 42, padded=padded))) > full


def test_a_row_that_is_longer_than_the_budget_is_refused():
    with pytest.raises(ConfigError) as error:
        fill_micro_batches([5, 9, 7], 8, 42, padded=True)
    hint = "set it to 9 or more, or data.max_seq_length to 8 or less"
    assert str(error.value) == f"training.max_tokens_per_batch: is 8, but the longest row has 9 tokens; {hint}"


def test_tokens_are_counted_in_the_order_of_rows():
    dataset = Dataset.from_list([{"input_ids": [7] * length, "labels": [0]} for length in (3, 1, 2)])
    assert token_counts(dataset.select([2, 0])) == [2, 3]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"data": {"train": "rows", "streaming": True}, "training": {"max_steps": 2, "max_tokens_per_batch": 64}},
            "data.streaming cannot group rows by length; remove training.max_tokens_per_batch",
        ),
        (
            {"training": {"max_tokens_per_batch": 64, "extra": {"train_sampling_strategy": "group_by_length"}}},
            "training.max_tokens_per_batch and train_sampling_strategy 'group_by_length' both decide "
            "how rows are batched; remove one of them",
        ),
        (
            {"training": {"max_tokens_per_batch": 64, "per_device_train_batch_size": "auto"}},
            "training.per_device_train_batch_size is auto, but training.max_tokens_"
            "per_batch also sizes micro-batches; remove one of them",
        ),
    ],
)
def test_what_else_puts_rows_together_is_refused(changes, problem):
    config = resolve(Document({"model": "base", "data": {"train": "rows"}, **changes}, {})).config
    assert [str(each) for each in [*streaming_conflicts(config, ""), *conflicting_batch_sizes(config, "")]] == [problem]


def test_the_step_is_that_of_its_rows_however_they_are_put_together(tmp_path, llama):
    expected, logged = one_step(tmp_path, llama, "cross-entropy", 8, 1)
    model, watch = load(llama), Watch()
    made = trainer(model, objective(cross_entropy, model), tmp_path, rows(), watch=watch, num_train_epochs=1)
    made.order = order(rows(), 30, per_step=4)
    assert len({len(some) for some in made.order.filled}) > 1
    made.train()
    assert len(watch.gradients) == 1
    assert difference(watch.gradients[0], expected) < 1e-6
    assert watch.losses == [pytest.approx(logged, rel=1e-6)]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_the_middle_of_the_second_epoch_is_one_to_go_on_from(llama, tmp_path, workers):
    def budgeted(folder):
        made = make(llama, folder, extra={"dataloader_num_workers": workers})
        made.order = order(rows(LENGTHS), 35, per_step=2)
        return made

    whole, again = budgeted(tmp_path / "whole"), budgeted(tmp_path / "again")
    expected = end_of(whole, whole.train())
    disturb()
    middle = 1 + expected.step // 2
    assert end_of(again, again.train(resume_from=tmp_path / "whole" / f"checkpoint-{middle}")) == expected
    assert expected.tokens == 2 * sum(len(row["input_ids"]) for row in rows(LENGTHS))
    assert whole.order.count % 2 == 1
    assert expected.step == whole.order.count + 1


def test_a_run_trains_by_its_budget(llama, tmp_path):
    texts = [{"text": "the film was good " * (1 + number % 5)} for number in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, texts)))
    events = []
    config = {
        "model": {"path": str(llama), "dtype": "float32", "device": "cpu"},
        "output_dir": str(tmp_path / "run"),
        "data": {"train": str(tmp_path / "rows.jsonl")},
        "training": {"max_tokens_per_batch": 64, "num_train_epochs": 1, "gradient_accumulation_steps": 1, "logging_steps": 1},
    }
    train(config, listener=events.append)
    notes = [each.values["text"] for each in events if each.kind == "note"]
    assert "20 rows make 8 micro-batches of up to 64 tokens, 86% full" in notes
    assert [each.values["steps"] for each in events if each.kind == "finished"] == [8]
