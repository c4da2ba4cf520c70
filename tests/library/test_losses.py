"""Weighted squared error is the original guide's formula, as a module and in a run."""

import doctest

import pytest
import torch

from smolora_core.library import losses
from smolora_core.library.losses import WeightedMSELoss
from tests.support.losses_at_hand import made

EQUAL = 1e-6
generator = torch.Generator().manual_seed(0)
PREDICTIONS, TARGETS = torch.randn(2, 8, 3, generator=generator)
WEIGHTS = torch.tensor([1, 2, 0.5])
ROWS = torch.rand(8, generator=generator)


def guide(predictions, targets, weights=1.0):
    """The formula of the guide."""
    return torch.mean(weights * (predictions.double() - targets.double()) ** 2).item()


@pytest.mark.parametrize("weights", [WEIGHTS, [1, 2, 0.5], WEIGHTS.double(), None, ROWS[:, None], torch.tensor(3)], ids=type)
def test_the_module_is_the_guides_formula(weights):
    plain = 1.0 if weights is None else torch.as_tensor(weights)
    found = WeightedMSELoss(weights)(PREDICTIONS, TARGETS)
    assert (found.shape, found.dtype) == ((), torch.float32)
    assert found.item() == pytest.approx(guide(PREDICTIONS, TARGETS, plain), rel=EQUAL)


def test_rows_count_by_their_weights():
    """Weights of rows that are 1 on average make the guide's formula; others make the mean that they weigh."""
    found = WeightedMSELoss(WEIGHTS)(PREDICTIONS, TARGETS, row_weights=ROWS).item()
    assert found == pytest.approx(guide(PREDICTIONS, TARGETS, WEIGHTS * (ROWS / ROWS.mean())[:, None]), rel=EQUAL)
    assert found == pytest.approx(WeightedMSELoss(WEIGHTS)(PREDICTIONS, TARGETS, row_weights=7 * ROWS).item(), rel=EQUAL)


def test_a_row_that_weighs_2_counts_as_two_rows():
    twice = torch.tensor([2.0, *[1] * 7])
    found = WeightedMSELoss(WEIGHTS)(PREDICTIONS, TARGETS, row_weights=twice).item()
    first = [0, *range(8)]
    assert found == pytest.approx(guide(PREDICTIONS[first], TARGETS[first], WEIGHTS), rel=EQUAL)


def test_one_output_without_a_dimension_of_its_own():
    found = WeightedMSELoss()(PREDICTIONS[:, 0], TARGETS[:, 0], ROWS / ROWS.mean()).item()
    assert found == pytest.approx(guide(PREDICTIONS[:, 0], TARGETS[:, 0], ROWS / ROWS.mean()), rel=EQUAL)


def test_the_mean_of_a_runs_loss_is_the_modules():
    found = made("weighted-mse", weights=[1, 2, 0.5])(PREDICTIONS, TARGETS)
    assert found.mean().item() == pytest.approx(guide(PREDICTIONS, TARGETS, WEIGHTS), rel=EQUAL)
    assert made("mse")(PREDICTIONS, TARGETS).mean().item() == pytest.approx(guide(PREDICTIONS, TARGETS), rel=EQUAL)


def test_the_weights_go_where_the_module_goes_and_are_not_saved():
    loss = WeightedMSELoss([1, 2, 0.5])
    assert loss.to("meta").weights.device.type == "meta"
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("weights", "targets", "rows", "message"),
    [
        ([1, 2], TARGETS, None, "weights have shape [2], predictions [8, 3]"),
        (torch.ones(2, 8, 3), TARGETS, None, "weights have shape [2, 8, 3], predictions [8, 3]"),
        (None, TARGETS[:, 0], None, "predictions have shape [8, 3], targets [8]"),
        (None, TARGETS, ROWS[:7], "row_weights have shape [7], predictions [8, 3]"),
        (None, TARGETS, ROWS[:, None], "row_weights have shape [8, 1], predictions [8, 3]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(weights, targets, rows, message):
    with pytest.raises(ValueError, match="shape") as error:
        WeightedMSELoss(weights)(PREDICTIONS, targets, rows)
    assert str(error.value) == message


def test_the_example_of_the_module_says_what_happens():
    assert doctest.testmod(losses) == (0, 2)
