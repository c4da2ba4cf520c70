"""Overfitting: the held-out loss rises in two evaluations in a row while the training loss falls."""

from typing import Any

import pytest

from smolora_plugins.baseline.overfitting import overfitting_warning

RISING = [(20, 1.3), (40, 1.2), (60, 1.3), (80, 1.41)]
FALLING = [(10, 2.0), (30, 1.5), (50, 1.0), (60, 0.8), (70, 0.7), (80, 0.5)]


def history(held_out: list[tuple[int, float]], training: list[tuple[int, float]]) -> list[dict[str, Any]]:
    """Merge both losses by step, as a run logs them."""
    entries = [{"step": step, "loss": loss} for step, loss in training]
    entries += [{"step": step, "eval_loss": loss} for step, loss in held_out]
    return sorted(entries, key=lambda entry: entry["step"])


def test_the_warning_names_both_losses_and_what_to_do() -> None:
    assert overfitting_warning(history(RISING, FALLING)) == (
        "held-out loss has risen from 1.2 at step 40 to 1.41 at step 80 while training loss fell from 0.9 to 0.6: the model is "
        "overfitting; train for fewer epochs or on more rows (the checkpoint with the lowest held-out loss is kept)"
    )


@pytest.mark.parametrize(
    ("held_out", "training"),
    [
        pytest.param(RISING[:3], FALLING, id="one rise"),
        pytest.param([(20, 1.2), (40, 1.3), (60, 1.2), (80, 1.3)], FALLING, id="up and down"),
        pytest.param([(40, 1.2), (60, 1.205), (80, 1.21)], FALLING, id="less than a hundredth"),
        pytest.param(RISING, [(step, 1.0) for step, _ in FALLING], id="the training loss stays"),
        pytest.param(RISING, [(90, 0.1)], id="no training loss between the evaluations"),
        pytest.param([(20, 1.2), (40, float("nan")), (60, 1.4)], FALLING, id="not a number"),
        pytest.param([(40, 1.2), (60, 1.3), (60, 1.3)], FALLING, id="the same step evaluated again"),
        pytest.param([], FALLING, id="never evaluated"),
    ],
)
def test_nothing_is_said_of(held_out: list[tuple[int, float]], training: list[tuple[int, float]]) -> None:
    assert overfitting_warning(history(held_out, training)) is None


def test_it_is_said_once_whatever_follows() -> None:
    further = [*RISING, (100, 1.5), (120, 1.2), (140, 1.4), (160, 1.6)]
    training = [(step, 100 / step) for step in range(10, 170, 10)]
    warnings = [overfitting_warning(history(further[:count], training)) for count in range(len(further) + 1)]
    assert [text is not None for text in warnings] == [False, False, False, False, True, False, False, False, False]
