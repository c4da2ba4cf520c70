"""Metrics, beside those of a library or counted by hand."""

import math

import pytest
import torch

from smolora_plugins.tasks.metrics import (
    class_metrics,
    entity_metrics,
    label_metrics,
    observe_tokens,
    score_metrics,
    token_metrics,
)


def test_scores_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    right = torch.tensor([1.0, 2.0, 2.0, 3.5, -1.0, 0.25])
    predicted = torch.tensor([0.5, 2.5, 2.5, 2.0, -2.0, 0.75])
    other = right.flip(0)
    found = score_metrics(torch.stack([predicted, other, right, right], dim=-1), ["V", "A"])
    assert found == pytest.approx(
        {
            "pearson_V": stats.pearsonr(predicted, right)[0],
            "spearman_V": stats.spearmanr(predicted, right)[0],
            "rmse_V": math.sqrt(((predicted - right) ** 2).mean()),
            "pearson_A": stats.pearsonr(other, right)[0],
            "spearman_A": stats.spearmanr(other, right)[0],
            "rmse_A": math.sqrt(((other - right) ** 2).mean()),
        },
        rel=1e-6,
    )


def test_what_does_not_vary_correlates_with_nothing():
    found = score_metrics(torch.tensor([[1.0, 2.0], [1.0, 4.0]]), ["0"])
    assert found == pytest.approx({"pearson": 0.0, "spearman": 0.0, "rmse": math.sqrt(5)})


def test_macro_f1_is_the_mean_over_the_classes_that_are_met():
    # Class 0: 2 hits of 3 predicted and 2 right; class 1: 1 hit, 1 predicted, 2 right; class 2 never; class 3: 0 of 1 right.
    predicted, right = [0, 0, 0, 1, 3], [0, 0, 1, 1, 3]
    found = class_metrics(torch.tensor([predicted, right]).T, classes=4)
    assert found == pytest.approx({"accuracy": 0.8, "macro_f1": (4 / 5 + 2 / 3 + 1) / 3})


def test_a_row_with_several_labels_is_right_if_all_of_them_are():
    predicted, right = torch.tensor([[1, 0], [1, 1], [0, 0]]), torch.tensor([[1, 0], [1, 0], [0, 0]])
    found = label_metrics(torch.cat([predicted, right], dim=-1))
    assert found == pytest.approx({"accuracy": 2 / 3, "macro_f1": (1 + 0) / 2})


@pytest.mark.parametrize(
    ("predicted", "right", "f1"),
    [
        ("O B-a I-a O", "O B-a I-a O", 1.0),
        ("O B-a O O", "O B-a I-a O", 0.0),
        ("B-a B-a O B-b", "B-a I-a O B-b", 2 / 5),
        ("I-a I-a O O", "B-a I-a O O", 1.0),
        ("B-a I-b O O", "B-a O O O", 2 / 3),
        ("O O O O", "O O O O", 0.0),
    ],
)
def test_an_entity_counts_as_a_whole(predicted, right, f1):
    assert entity_metrics([predicted.split()], [right.split()])["entity_f1"] == pytest.approx(f1)


def test_entities_end_with_their_sentence():
    found = entity_metrics([["B-a"], ["I-a"]], [["B-a"], ["B-a"]])
    assert found == {"entity_f1": 1.0, "entity_precision": 1.0, "entity_recall": 1.0}


def test_perplexity_is_that_of_the_likelihood():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    found = token_metrics(observe_tokens(logits, torch.tensor([0, 1])))
    assert found == pytest.approx({"perplexity": math.exp((math.log(2) + math.log(4)) / 2), "token_accuracy": 0.5})
