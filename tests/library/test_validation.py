"""Arguments of functions are checked like values of a config."""

from fractions import Fraction
from typing import Literal

import attrs
import pytest

from smolora_core import ConfigError
from smolora_core.library.validation import validate_inputs


def positive(value):
    return value > 0


def no_spaces(value):
    if " " in value:
        raise ValueError("must have no spaces")


@validate_inputs(
    r=int,
    alpha=float | None,
    mode=Literal["mean", "sum"],
    scale=positive,
    name=no_spaces,
    share=Fraction,
    layers=list[int],
    low=attrs.validators.ge(0),
    odd=lambda value: value % 2 == 1,
)
def build(r=8, alpha=None, mode="mean", scale=1, name="", share=None, layers=(), low=-1, odd=0):
    return r


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"r": 8.5}, "build() r must be an integer, got 8.5"),
        ({"alpha": "1"}, "build() alpha must be a number, got '1'"),
        ({"mode": "maen"}, "build() mode must be one of mean, sum, got 'maen'; did you mean 'mean'?"),
        ({"scale": -1}, "build() scale must be positive, got -1"),
        ({"name": "a b"}, "build() name must have no spaces"),
        ({"share": 0.5}, "build() share must be a Fraction, got 0.5"),
        ({"layers": [0, "1"]}, "build() layers.1 must be an integer, got '1'"),
        ({"low": -2}, "build() low must be >= 0: -2"),
        ({"odd": 2}, "build() odd must be valid, got 2"),
    ],
)
def test_an_argument_that_will_not_do_is_named(given, message):
    with pytest.raises(ConfigError) as error:
        build(**given)
    assert str(error.value) == message


def test_what_will_do_passes_and_defaults_are_not_checked():
    assert build(4, alpha=1.5, mode="sum", scale=2, name="a", share=Fraction(1, 2), layers=[1], low=0, odd=3) == 4
    assert build(alpha=None) == 8


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        build("8", scale=0)
    assert str(error.value).splitlines() == [
        "build() r must be an integer, got '8'",
        "build() scale must be positive, got 0",
    ]


def test_the_function_is_not_called_with_what_will_not_do():
    called = []

    @validate_inputs(value=int)
    def remember(value):
        called.append(value)

    with pytest.raises(ConfigError, match=r"^remember\(\) value must be an integer, got true$"):
        remember(True)
    assert called == []


def test_arguments_behind_two_stars_are_checked_by_name():
    @validate_inputs(seed=int)
    def collect(**options):
        return options

    assert collect(seed=1, other="x") == {"seed": 1, "other": "x"}
    with pytest.raises(ConfigError, match="seed must be an integer"):
        collect(seed="1")


def test_a_name_that_the_function_does_not_take_is_refused_at_once():
    with pytest.raises(ConfigError) as error:

        @validate_inputs(lerning_rate=float)
        def step(learning_rate): ...

    assert str(error.value) == "step() has no parameter 'lerning_rate'; did you mean 'learning_rate'?"


def test_what_does_not_fit_the_signature_stays_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'rr'"):
        build(rr=1)
