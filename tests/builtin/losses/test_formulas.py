"""Each built-in loss is its formula, computed here a second time, value by value in double precision."""

from math import exp, expm1, log, log1p

import pytest
import torch

from tests.support.losses_at_hand import BUILT_IN, made, of_kind


def log_normaliser(logits):
    largest = max(logits)
    return largest + log(sum(exp(each - largest) for each in logits))


def nll(logits, target):
    """`-log p[target]`, exact also where p is nearly 1."""
    others = log_normaliser([each for place, each in enumerate(logits) if place != target]) - logits[target]
    return others + log1p(exp(-others)) if others > 0 else log1p(exp(others))


def smoothed(logits, target, smoothing):
    uniform = sum(nll(logits, each) for each in range(len(logits))) / len(logits)
    return (1 - smoothing) * nll(logits, target) + smoothing * uniform


def focal(logits, target, gamma, alpha=None):
    return (alpha[target] if alpha else 1) * (-expm1(-nll(logits, target))) ** gamma * nll(logits, target)


def binary(logit, target, weight=1):
    def minus_log_sigmoid(x):
        return log1p(exp(-x)) if x > 0 else -x + log1p(exp(x))

    return weight * target * minus_log_sigmoid(logit) + (1 - target) * minus_log_sigmoid(-logit)


def huber(prediction, target, delta):
    error = abs(prediction - target)
    return error**2 / 2 if error <= delta else delta * (error - delta / 2)


ALPHA = [0.5, 1, 2, 4, 0.25]
TOKEN = {
    "cross-entropy": ({}, nll),
    "label-smoothing": ({}, lambda x, t: smoothed(x, t, 0.1)),
    "label-smoothing 0.5": ({"smoothing": 0.5}, lambda x, t: smoothed(x, t, 0.5)),
    "focal": ({}, lambda x, t: focal(x, t, 2)),
    "focal 0": ({"gamma": 0}, nll),
    "focal 0.5 of classes": ({"gamma": 0.5, "alpha": ALPHA}, lambda x, t: focal(x, t, 0.5, ALPHA)),
    "z-loss": ({}, lambda x, t: nll(x, t) + 1e-4 * log_normaliser(x) ** 2),
    "z-loss 0.1": ({"weight": 0.1}, lambda x, t: nll(x, t) + 0.1 * log_normaliser(x) ** 2),
    "dft": ({}, lambda x, t: exp(-nll(x, t)) * nll(x, t)),
}
WEIGHTS = [1, 2, 0.5]
PREDICTION = {
    "mse": ({}, lambda p, t, k: (p - t) ** 2),
    "weighted-mse": ({"weights": WEIGHTS}, lambda p, t, k: WEIGHTS[k] * (p - t) ** 2),
    "huber": ({}, lambda p, t, k: huber(p, t, 1)),
    "huber 0.3": ({"delta": 0.3}, lambda p, t, k: huber(p, t, 0.3)),
    "bce": ({}, lambda p, t, k: binary(p, t)),
    "bce of labels": ({"pos_weight": WEIGHTS}, lambda p, t, k: binary(p, t, WEIGHTS[k])),
}
TARGETS = torch.arange(5).repeat(3)


def logits(scale):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(15, 5, generator=generator, dtype=torch.float64) * scale


def predictions(scale):
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(6, 3, generator=generator, dtype=torch.float64) * scale
    return drawn, torch.rand(6, 3, generator=generator, dtype=torch.float64).round(decimals=1)


def loss(case, options):
    return made(case.split()[0], **options)


def test_every_built_in_loss_is_here():
    assert {case.split()[0] for case in TOKEN} == set(of_kind("token"))
    assert {case.split()[0] for case in PREDICTION} == set(of_kind("prediction"))
    assert len(BUILT_IN) == 9


@pytest.mark.parametrize("case", TOKEN)
@pytest.mark.parametrize("scale", [0.01, 1, 30, 1e4])
def test_a_token_loss_is_its_formula(case, scale):
    options, formula = TOKEN[case]
    given = logits(scale).float()
    found = loss(case, options)(given, TARGETS)
    assert (found.shape, found.dtype) == (TARGETS.shape, torch.float32)
    expected = [formula(row, target) for row, target in zip(given.tolist(), TARGETS.tolist(), strict=True)]
    assert torch.allclose(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", PREDICTION)
@pytest.mark.parametrize("scale", [0.01, 1, 30, 1e4])
def test_a_prediction_loss_is_its_formula(case, scale):
    options, formula = PREDICTION[case]
    given, targets = (each.float() for each in predictions(scale))
    found = loss(case, options)(given, targets)
    assert (found.shape, found.dtype) == (targets.shape, torch.float32)
    expected = [
        [formula(p, t, k) for k, (p, t) in enumerate(zip(*row, strict=True))]
        for row in zip(given.tolist(), targets.tolist(), strict=True)
    ]
    assert torch.allclose(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in TOKEN if case != "dft"])
@pytest.mark.parametrize("scale", [1, 5])
def test_the_gradient_of_a_token_loss_is_that_of_its_values(case, scale):
    function = loss(case, TOKEN[case][0])
    assert torch.autograd.gradcheck(lambda x: function(x, TARGETS), logits(scale).requires_grad_())


@pytest.mark.parametrize("case", PREDICTION)
def test_the_gradient_of_a_prediction_loss_is_that_of_its_values(case):
    given, targets = predictions(1)
    function = loss(case, PREDICTION[case][0])
    assert torch.autograd.gradcheck(lambda x: function(x, targets), given.requires_grad_())


def test_dft_takes_the_probability_as_a_constant():
    given = logits(1).requires_grad_()
    nll = made("cross-entropy")(given, TARGETS)
    (expected,) = torch.autograd.grad(torch.exp(-nll.detach()) @ nll, given)
    (found,) = torch.autograd.grad(made("dft")(given, TARGETS).sum(), given)
    assert torch.allclose(found, expected)


EXTREMES = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4], [0.0, 0.0], [1e4, 0.0], [20.0, 0.0], [90.0, 0.0]])


@pytest.mark.parametrize("case", [*TOKEN, "focal 0.1 of two"])
@pytest.mark.parametrize("target", [0, 1])
def test_extreme_logits_have_finite_losses_and_gradients(case, target):
    options = {"gamma": 0.1, "alpha": [1, 2]} if "of" in case else TOKEN[case][0]
    given = EXTREMES.clone().requires_grad_()
    losses = loss(case, options)(given, torch.full((len(given),), target))
    losses.sum().backward()
    assert losses.isfinite().all() and (losses >= 0).all()
    assert given.grad.isfinite().all()


@pytest.mark.parametrize("case", PREDICTION)
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_extreme_predictions_have_finite_losses_and_gradients(case, target):
    options = {name: value[:2] if isinstance(value, list) else value for name, value in PREDICTION[case][0].items()}
    given = EXTREMES.clone().requires_grad_()
    losses = loss(case, options)(given, torch.full_like(given, target))
    losses.sum().backward()
    assert losses.isfinite().all() and (losses >= 0).all()
    assert given.grad.isfinite().all()


def test_one_output_needs_no_column():
    assert made("weighted-mse", weights=[2])(torch.ones(4), torch.zeros(4)).tolist() == [2.0] * 4
    assert made("bce", pos_weight=[2])(torch.zeros(4), torch.ones(4)).tolist() == pytest.approx([2 * log(2)] * 4)
