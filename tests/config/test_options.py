"""Options of components: the classes of third parties are schemas like the sections of the core."""

import importlib
import sys
from pathlib import Path
from textwrap import dedent

import attrs
import pytest

from smolora_core.config import convert
from smolora_core.errors import ConfigError, PluginError

OPTIONS = """
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, List, Literal, Optional

import attrs


@attrs.frozen
class Inner:
    depth: int = 1


@attrs.frozen
class Options:
    gamma: float = attrs.field(default=2.0, validator=attrs.validators.ge(0))
    weights: list[float] = attrs.field(factory=list)
    names: Sequence[str] = ()
    betas: tuple[float, float] = (0.9, 0.99)
    path: Path | None = None
    mode: Literal["mean", "sum"] = attrs.field(default="mean", validator=attrs.validators.in_(["mean"]))
    scores: Mapping[str, int] = attrs.field(factory=dict)
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    level: Optional[Annotated[int, "documented"]] = None
    anything: Any = None
    old: List[int] = attrs.field(factory=list)
    _hidden: int = 0
    derived: int = attrs.field(default=1, init=False)
    low: int = attrs.field(default=0)

    @low.validator
    def _below_level(self, attribute, value):
        if self.level is not None and value > self.level:
            raise ValueError("low must not be above level")


@attrs.frozen
class Together:
    low: int = 0
    high: int = 1

    def __attrs_post_init__(self):
        if self.low > self.high:
            raise ValueError("low must not be above high")


@attrs.frozen
class Unknowable:
    amounts: set[int] = attrs.field(factory=set)


@attrs.frozen
class Unresolved:
    tensor: Tensor = None
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """Import a third party's module whose annotations are text."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "acme_options.py").write_text(dedent(OPTIONS))
    yield importlib.import_module("acme_options")
    del sys.modules["acme_options"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"gamma": 3}, {"gamma": 3.0}),
        ({"weights": [1, 2.5]}, {"weights": [1.0, 2.5]}),
        ({"names": ["a", "b"]}, {"names": ("a", "b")}),
        ({"betas": [0.5, 1]}, {"betas": (0.5, 1.0)}),
        ({"path": "rows.jsonl"}, {"path": Path("rows.jsonl")}),
        ({"path": None}, {"path": None}),
        ({"scores": {"a": 1}}, {"scores": {"a": 1}}),
        ({"level": 3}, {"level": 3}),
        ({"anything": {"a": [1]}}, {"anything": {"a": [1]}}),
        ({"old": [1]}, {"old": [1]}),
        ({"hidden": 3}, {"_hidden": 3}),
    ],
)
def test_types_written_as_text_are_understood(acme, given, made):
    options = convert(given, acme.Options, {}, "loss")
    assert {name: getattr(options, name) for name in made} == made


def test_sections_in_sections_are_made(acme):
    options = convert({"inner": {"depth": 2}, "many": [{"depth": 3}, {}]}, acme.Options, {}, "loss")
    assert (options.inner, options.many) == (acme.Inner(2), (acme.Inner(3), acme.Inner(1)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gamma": "3"}, "loss.gamma must be a number, got '3'"),
        ({"gamma": -1}, "loss.gamma must be >= 0: -1.0"),
        ({"weights": [1, "a"]}, "loss.weights.1 must be a number, got 'a'"),
        ({"weights": 1}, "loss.weights must be a list, got 1"),
        ({"names": "ab"}, "loss.names must be a list, got 'ab'"),
        ({"betas": [1]}, "loss.betas must be a list of 2, got [1]"),
        ({"path": 3}, "loss.path must be a path, got 3"),
        ({"mode": "summ"}, "loss.mode must be one of mean, sum, got 'summ'; did you mean 'sum'?"),
        ({"mode": "sum"}, "loss.mode must be in ['mean'] (got 'sum')"),
        ({"scores": {"a": 1.5}}, "loss.scores.a must be an integer, got 1.5"),
        ({"inner": {"dept": 1}}, "unknown key 'dept' in loss.inner; did you mean 'depth'?"),
        ({"many": [{"depth": "x"}]}, "loss.many.0.depth must be an integer, got 'x'"),
        ({"level": "x"}, "loss.level must be an integer, got 'x'"),
        ({"gama": 1}, "unknown key 'gama' in loss 'focal' (acme 1.2); did you mean 'gamma'?"),
        ({"low": 3, "level": 2}, "loss: low must not be above level"),
    ],
)
def test_options_are_taken_as_strictly_as_the_sections_of_the_core(acme, given, message):
    with pytest.raises(ConfigError) as caught:
        convert(given, acme.Options, {"loss": "run.yaml:7"}, "loss", "loss 'focal' (acme 1.2)")
    assert str(caught.value) == f"run.yaml:7 {message}"


def test_a_field_that_is_computed_is_no_key(acme):
    with pytest.raises(ConfigError, match=r"^unknown key 'derived' in loss; known: "):
        convert({"derived": 1}, acme.Options, {}, "loss")


def test_values_that_do_not_go_together_are_refused(acme):
    with pytest.raises(ConfigError) as caught:
        convert({"low": 3}, acme.Together, {"loss": "run.yaml:7"}, "loss")
    assert str(caught.value) == "run.yaml:7 loss: low must not be above high"


def test_a_missing_option_is_named():
    @attrs.frozen
    class Demanding:
        weights: tuple[float, ...]

    with pytest.raises(ConfigError) as caught:
        convert({}, Demanding, {"loss": "run.yaml:7"}, "loss")
    assert str(caught.value) == "run.yaml:7 key 'loss.weights' is missing"


def test_a_type_that_no_config_can_hold_is_the_plugins_fault(acme):
    with pytest.raises(PluginError) as caught:
        convert({}, acme.Unknowable, {}, "loss")
    assert str(caught.value) == (
        "acme_options.Unknowable.amounts has type set[int], which a config cannot contain; "
        "use str, int, float, bool, Path, Literal, list, tuple, Mapping or attrs classes"
    )


def test_a_type_that_cannot_be_resolved_is_the_plugins_fault(acme):
    with pytest.raises(PluginError) as caught:
        convert({}, acme.Unresolved, {}, "loss")
    assert str(caught.value) == (
        "the annotations of acme_options.Unresolved cannot be resolved (name 'Tensor' is not defined); "
        "import the names at module level, not under TYPE_CHECKING"
    )
