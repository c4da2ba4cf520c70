"""Options of the built-in losses are refused where the config is read, or at the first step where they hang on the model."""

from math import inf, nan

import pytest
import torch

from smolora_core.errors import ConfigError
from tests.benchmarks.split_invariance import OPTIONS, step
from tests.support.losses_at_hand import made


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("label-smoothing", {"smoothing": 1}, "loss.smoothing must be at least 0 and below 1, got 1.0"),
        ("label-smoothing", {"smoothing": -0.1}, "loss.smoothing must be at least 0 and below 1, got -0.1"),
        ("label-smoothing", {"smoothing": nan}, "loss.smoothing must be at least 0 and below 1, got nan"),
        ("focal", {"gamma": -1}, "loss.gamma must be at least 0, got -1.0"),
        ("focal", {"gamma": inf}, "loss.gamma must be at least 0, got inf"),
        ("focal", {"alpha": []}, "loss.alpha is an empty list"),
        ("focal", {"alpha": [1, 0]}, "loss.alpha must contain only numbers above 0, got 0.0"),
        ("focal", {"alpha": 0.25}, "loss.alpha must be a list, got 0.25"),
        ("z-loss", {"weight": 0}, "loss.weight must be above 0, got 0.0"),
        ("weighted-mse", {}, "key 'loss.weights' is missing"),
        ("weighted-mse", {"weights": []}, "loss.weights is an empty list"),
        ("weighted-mse", {"weights": [1, -2, 0.5]}, "loss.weights must contain only numbers above 0, got -2.0"),
        ("weighted-mse", {"weights": [1, inf]}, "loss.weights must contain only numbers above 0, got inf"),
        ("huber", {"delta": 0}, "loss.delta must be above 0, got 0.0"),
        ("bce", {"pos_weight": [nan]}, "loss.pos_weight must contain only numbers above 0, got nan"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(name, options, message):
    with pytest.raises(ConfigError) as error:
        made(name, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("weighted-mse", {"weights": [1, 2]}, "loss.weights needs one value per output (3), has 2"),
        ("weighted-mse", {"weights": [2]}, "loss.weights needs one value per output (3), has 1"),
        ("bce", {"pos_weight": [1, 2, 3, 4]}, "loss.pos_weight needs one value per label (3), has 4"),
        ("focal", {"alpha": [0.25, 0.75]}, "loss.alpha needs one value per class (3), has 2"),
    ],
)
def test_a_list_that_does_not_fit_the_model_is_refused(name, options, message):
    targets = torch.zeros(4, dtype=torch.int64) if name == "focal" else torch.zeros(4, 3)
    with pytest.raises(ConfigError) as error:
        made(name, **options)(torch.zeros(4, 3), targets)
    assert str(error.value) == message


def test_a_run_ends_at_its_first_step_where_weights_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setitem(OPTIONS, "weighted-mse", {"weights": [1, 2]})
    with pytest.raises(ConfigError) as error:
        step(tmp_path, ("regression", "weighted-mse", False), micro_batch=4, accumulation=2)
    assert str(error.value) == "loss.weights needs one value per output (3), has 2"
