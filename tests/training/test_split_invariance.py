"""However rows are split, every loss that fits a task has the same value and the same gradient.

That a step divides by the weight of all its micro-batches and ranks is shown in tests/training/test_same_step.py; whole runs of
all these pairs, on two ranks too, are taken by tests/benchmarks/split_invariance.py.
"""

import copy
from functools import cache

import pytest
from transformers import TrainingArguments

from smolora_core import Task
from smolora_core.training.loop import TrainingLoop
from smolora_core.training.objective import make_objective
from tests.benchmarks.split_invariance import CASES, OPTIONS, pairs, step
from tests.support.losses_at_hand import BUILT_IN, REGISTRY, made
from tests.support.small_run import difference, gradients

EQUAL = 1e-5
PAIRS = list(pairs())


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Make the adapted model of a case, its eight rows and what collates them, by taking a step."""
    folder = tmp_path_factory.mktemp("cases")

    @cache
    def make(name):
        default = next(loss for case, loss, weighted in PAIRS if case == name and weighted)
        return step(folder, (name, default, True), 8, 1)

    return make


def objective_of(pair, model):
    name, loss, weighted = pair
    predicts = REGISTRY.resolve(Task, CASES[name].task).component.predicts
    # Some chunks of a language model's tokens, and a ragged last one.
    further = {"chunk_bytes": 2**14, "predicts": predicts, "weight_field": "weight" if weighted else None}
    return make_objective(BUILT_IN[loss], made(loss, **OPTIONS.get(loss, {})), model, **further)


def mean(seen, pair, size):
    """Compute the loss of all rows and its gradient, so many rows at a time."""
    weighted, model = pair[2], copy.deepcopy(seen.model)
    objective = objective_of(pair, model)
    total = weight = 0.0
    for start in range(0, 8, size):
        batch = seen.collate([seen.rows[place] for place in range(start, min(8, start + size))])
        if not weighted:
            del batch["weight"]
        found = objective(model, batch)
        found.sum.backward()
        total, weight = total + found.sum.item(), weight + found.weight.item()
    return total / weight, {key: each / weight for key, each in gradients(model).items()}


def test_every_task_has_a_case_and_every_loss_a_pair():
    assert {found.component.name for found in REGISTRY.of_kind(Task)} == {case.task for case in CASES.values()}
    assert {loss for _, loss, _ in PAIRS} == set(BUILT_IN)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join([*pair[:2], *["rows weigh"] * pair[2]]))
def test_a_split_changes_neither_the_loss_nor_its_gradient(adapted, pair):
    value, gradient = mean(adapted(pair[0]), pair, 8)
    for size in (4, 3, 1):
        other_value, other_gradient = mean(adapted(pair[0]), pair, size)
        assert other_value == pytest.approx(value, rel=EQUAL)
        assert difference(other_gradient, gradient) < EQUAL


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " ".join([*pair[:2], *["rows weigh"] * pair[2]]))
def test_the_size_of_a_batch_does_not_change_the_evaluation(adapted, pair, tmp_path):
    seen, found = adapted(pair[0]), []
    for size in (8, 3, 1):
        trainer = TrainingLoop(
            objective=objective_of(pair, seen.model),
            save=lambda *arguments: None,
            model=seen.model,
            args=TrainingArguments(tmp_path, per_device_eval_batch_size=size, use_cpu=True, remove_unused_columns=False),
            eval_dataset=seen.rows,
            data_collator=seen.collate,
        )
        found.append(trainer.evaluate()["eval_loss"])
    assert found[1:] == pytest.approx([found[0]] * 2, rel=EQUAL)
