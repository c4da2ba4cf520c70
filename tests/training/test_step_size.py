"""How many rows an optimizer step has."""

import pytest

from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.training.arguments import conflicting_batch_sizes


def config(**training):
    return resolve(Document({"model": "base", "data": {"train": "rows"}, "training": training}, {})).config


@pytest.mark.parametrize(
    ("training", "one", "two"),
    [
        ({}, 16, 32),
        ({"per_device_train_batch_size": 2}, 8, 16),
        ({"gradient_accumulation_steps": 3}, 12, 24),
        ({"effective_batch_size": 24}, 24, 24),
        ({"per_device_train_batch_size": "auto"}, 16, 32),
        ({"per_device_train_batch_size": "auto", "effective_batch_size": 6}, 6, 6),
        ({"max_tokens_per_batch": 512}, 4, 8),
        ({"max_tokens_per_batch": 512, "gradient_accumulation_steps": 2}, 2, 4),
    ],
)
def test_units_of_one_and_two_processes(training, one, two):
    section = config(**training).training
    assert (section.units_per_step(), section.units_per_step(2)) == (one, two)


@pytest.mark.parametrize(
    ("training", "processes", "problem"),
    [
        ({"effective_batch_size": 16, "gradient_accumulation_steps": 4}, 1, None),
        ({"effective_batch_size": 16, "gradient_accumulation_steps": 2}, 2, None),
        (
            {"effective_batch_size": 16, "gradient_accumulation_steps": 2},
            1,
            "training.effective_batch_size is 16, but micro-batches of 4 rows, accumulated 2 times, have 8; remove one of them",
        ),
        (
            {"effective_batch_size": 16, "gradient_accumulation_steps": 4},
            2,
            "training.effective_batch_size is 16, but micro-batches of 4 rows, accumulated 4 times by 2 processes, have 32; "
            "remove one of them",
        ),
        (
            {"effective_batch_size": 16, "max_tokens_per_batch": 512},
            1,
            "training.effective_batch_size counts rows, but training.max_tokens_per_batch puts any number in a micro-batch; "
            "set training.gradient_accumulation_steps instead",
        ),
        (
            {"per_device_train_batch_size": "auto", "gradient_accumulation_steps": 2},
            1,
            "training.per_device_train_batch_size is auto, which decides training.gradient_accumulation_steps; "
            "remove it, or set training.effective_batch_size",
        ),
    ],
)
def test_sizes_that_contradict_each_other(monkeypatch, training, processes, problem):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    assert [str(each) for each in conflicting_batch_sizes(config(**training), "")] == ([problem] if problem else [])
