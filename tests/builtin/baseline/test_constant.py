"""The best constant answer and what it gets, in numbers that can be checked by hand."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from smolora_core import Loss
from smolora_core.batches import pad
from smolora_plugins.baseline.constant import Targets, average, log_frequencies, measure, read_targets
from smolora_plugins.losses.bce import bce
from smolora_plugins.losses.cross_entropy import cross_entropy
from smolora_plugins.losses.mse import mse
from smolora_plugins.tasks.causal_lm import CausalLM

TOKEN = Loss(name="made-here", summary="", implementation=cross_entropy)
PREDICTION = Loss(name="made-here", summary="", implementation=mse, kind="prediction")
ROWS = [
    {"input_ids": [9, 5, 5, 6], "labels": [-100, 5, 5, 6], "weight": 1.0},
    {"input_ids": [9, 5, 7], "labels": [9, -100, 7], "weight": 3.0},
]


def collate(rows: list[dict]) -> dict[str, Tensor]:
    return pad(rows, pad_token_id=0)


def targets_of(values: list, weights: list[float] | None = None, **columns: list[float]) -> Targets:
    made = {name: torch.tensor(column) for name, column in columns.items()}
    return Targets(torch.tensor(values), torch.arange(len(values)), torch.tensor(weights or [1.0] * len(values)).double(), made)


@pytest.mark.parametrize(("predicts", "expected"), [("next-token", {5: 2, 6: 1, 7: 1}), ("token", {5: 2, 6: 1, 7: 1, 9: 1})])
def test_masked_labels_are_left_out_and_those_of_next_tokens_shifted(predicts: str, expected: dict[int, int]) -> None:
    found = read_targets(Dataset.from_list(ROWS), collate, predicts, TOKEN, None)
    assert Counter(found.values.tolist()) == expected


def test_each_target_has_its_rows_weight() -> None:
    found = read_targets(Dataset.from_list(ROWS), collate, "token", TOKEN, "weight")
    assert sorted(zip(found.values.tolist(), found.weights.tolist(), strict=True)) == [(5, 1), (5, 1), (6, 1), (7, 3), (9, 3)]
    assert len({row for row, weight in zip(found.rows.tolist(), found.weights.tolist(), strict=True) if weight == 3}) == 1


def test_frequencies_are_weighted() -> None:
    shares = log_frequencies(targets_of([0, 1, 1], [2.0, 1.0, 1.0]), 2).exp()
    assert shares.tolist() == pytest.approx([0.5, 0.5])


def test_targets_that_never_occurred_share_the_chance_of_a_new_one() -> None:
    # Two kinds in six targets: the next one is new with probability 2 / (2 + 6).
    shares = log_frequencies(targets_of([0, 0, 0, 0, 2, 2]), 5).exp()
    assert shares.tolist() == pytest.approx([0.75 * 4 / 6, 0.25 / 3, 0.75 * 2 / 6, 0.25 / 3, 0.25 / 3])


def test_the_loss_of_frequencies_is_their_cross_entropy() -> None:
    answer = log_frequencies(targets_of([0, 0, 0, 1]), 2)
    assert measure(answer, targets_of([0, 1, 1]), cross_entropy)["loss"] == pytest.approx(-math.log(0.75 * 0.25**2) / 3)


def test_the_loss_is_weighted_and_the_tasks_metrics_are_not() -> None:
    answer = log_frequencies(targets_of([0, 0, 0, 1]), 2)
    found = measure(answer, targets_of([0, 1], [3.0, 1.0]), cross_entropy, CausalLM())
    assert found["loss"] == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)
    assert found["token_accuracy"] == 0.5
    assert found["perplexity"] == pytest.approx(math.exp(-math.log(0.75 * 0.25) / 2))


def test_a_loss_gets_its_columns() -> None:
    def scaled(logits: Tensor, targets: Tensor, *, scale: Tensor) -> Tensor:
        return scale * cross_entropy(logits, targets)

    found = measure(torch.zeros(2), targets_of([0, 0, 1], scale=[1.0, 2.0, 6.0]), scaled)
    assert found["loss"] == pytest.approx(3 * math.log(2))


def test_numbers_are_answered_with_their_weighted_mean() -> None:
    mean, answer = average(targets_of([[1.0, 0.0], [4.0, 8.0]], [2.0, 1.0]), mse)
    assert mean.tolist() == pytest.approx([2.0, 8 / 3])
    assert answer.tolist() == pytest.approx([2.0, 8 / 3])
    found = measure(answer, targets_of([[2.0, 8 / 3], [5.0, 8 / 3]], [2.0, 1.0]), mse)
    assert found["loss"] == pytest.approx(3**2 / 3 / 2)


def test_several_labels_are_answered_with_their_log_odds() -> None:
    labels = [[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    mean, answer = average(targets_of(labels), bce_without_weights)
    assert mean.tolist() == [0.75, 0.25]
    assert answer.tolist() == pytest.approx([math.log(3), -math.log(3)])


def test_a_label_of_every_row_has_a_finite_answer() -> None:
    _, answer = average(targets_of([[1.0, 0.0], [1.0, 0.0]]), bce_without_weights)
    assert answer.tolist() == pytest.approx([math.log(3), -math.log(3)])


def test_numbers_between_0_and_1_are_still_answered_with_their_mean() -> None:
    _, answer = average(targets_of([[0.25], [0.5]]), mse)
    assert answer.tolist() == [0.375]


def test_a_column_has_one_value_for_each_row_of_numbers() -> None:
    def scaled(predictions: Tensor, targets: Tensor, *, scale: Tensor) -> Tensor:
        return scale * mse(predictions, targets)

    found = measure(torch.zeros(2), targets_of([[1.0, 1.0], [2.0, 2.0]], scale=[1.0, 10.0]), scaled)
    assert found["loss"] == pytest.approx((1 + 10 * 4) / 2)


@pytest.mark.parametrize("numbers", [(0.5, 2.0), (-100, 2)])
def test_the_labels_of_a_prediction_are_numbers(numbers: tuple[float, float]) -> None:
    rows = [{"input_ids": [1, 2], "score": numbers[0]}, {"input_ids": [1], "score": numbers[1]}]

    def scores(rows: list[dict]) -> dict[str, Tensor]:
        return {**collate(rows), "labels": torch.tensor([[row["score"]] for row in rows])}

    found = read_targets(Dataset.from_list(rows), scores, "row", PREDICTION, None)
    assert found.values.is_floating_point()
    assert sorted(found.values.flatten().tolist()) == sorted(numbers)


def test_a_large_dataset_is_sampled() -> None:
    tokens = torch.randint(0, 4, (4000, 512), generator=torch.Generator().manual_seed(0)).tolist()
    found = read_targets(Dataset.from_dict({"input_ids": tokens, "labels": tokens}), collate, "token", TOKEN, None)
    assert len(found.values) == 2**20
    assert (log_frequencies(found, 4).exp() - 0.25).abs().max() < 0.002


def test_a_large_vocabulary_is_measured_on_a_sample() -> None:
    logits = torch.zeros(2**20)
    logits[:4] = torch.tensor([15.0, 14.0, 13.0, 12.0])
    values = torch.arange(4000) % 4
    expected = F.cross_entropy(logits.expand(4, -1), torch.arange(4)).item()
    assert measure(logits, targets_of(values.tolist()), cross_entropy)["loss"] == pytest.approx(expected, abs=0.1)


def test_the_runs_random_numbers_are_left_alone() -> None:
    state = torch.random.get_rng_state()
    found = read_targets(Dataset.from_list(ROWS), collate, "token", TOKEN, None)
    measure(log_frequencies(found, 10), found, cross_entropy)
    assert torch.equal(state, torch.random.get_rng_state())


def bce_without_weights(predictions: Tensor, targets: Tensor) -> Tensor:
    return bce(predictions, targets, pos_weight=None)
