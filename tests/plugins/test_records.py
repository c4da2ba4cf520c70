"""Records refuse what cannot work, at once and by name."""

import attrs
import pytest

from smolora_core import CheckpointWriter, Loss, MemoryStrategy, PluginError, Preprocessor, Targets
from smolora_core.hookspecs import CONTRIBUTIONS


class Plain:
    pass


@attrs.frozen
class Options:
    pass


def writer(**fields):
    return CheckpointWriter(**{"name": "card", "summary": "", "implementation": "acme:card", **fields})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: writer(name="My Card!"), "'My Card!': a name may contain only a-z, 0-9 and -; write 'my-card'"),
        (lambda: writer(name=""), "'': a name may contain only a-z, 0-9 and -; write 'my-name'"),
        (lambda: writer(name=3), "3: a name may contain only a-z, 0-9 and -; write '3'"),
        (lambda: writer(summary=None), "'card': summary must be a string, got None"),
        (
            lambda: writer(implementation="acme"),
            "'card': implementation 'acme' is neither an import path nor a callable; write 'package.module:attribute'",
        ),
        (
            lambda: writer(implementation="a..b:c"),
            "'card': implementation 'a..b:c' is neither an import path nor a callable; write 'package.module:attribute'",
        ),
        (
            lambda: writer(implementation=3),
            "'card': implementation 3 is neither an import path nor a callable; write 'package.module:attribute'",
        ),
        (lambda: writer(options=Plain), f"'card': options {Plain!r} is not an attrs class; decorate it with @attrs.frozen"),
        (lambda: writer(options=Options()), "'card': options Options() is not an attrs class; pass the class, not an instance"),
    ],
)
def test_a_record_refuses_a_field_that_cannot_work(make, message):
    with pytest.raises(PluginError) as caught:
        make()
    assert str(caught.value) == f"CheckpointWriter {message}"


def test_one_text_is_no_list_of_names():
    with pytest.raises(PluginError) as caught:
        MemoryStrategy(name="x", summary="", implementation=print, devices="cuda")
    assert str(caught.value) == "MemoryStrategy 'x': devices must be a list of names, got 'cuda'; write ('cuda',)"


def test_a_number_is_no_name():
    with pytest.raises(PluginError) as caught:
        Targets(name="x", summary="", model_types=("x",), modules=(1,))
    assert str(caught.value) == "Targets 'x': modules must be a list of names, got (1,)"


def test_a_loss_is_of_a_kind_that_exists():
    with pytest.raises(PluginError) as caught:
        Loss(name="x", summary="", implementation=print, kind="tokens")
    assert str(caught.value) == "Loss 'x': kind must be one of token, prediction, model, got 'tokens'; did you mean 'token'?"


def test_a_preprocessor_is_of_a_scope_that_exists():
    with pytest.raises(PluginError) as caught:
        Preprocessor(name="x", summary="", implementation=print, scope="column")
    assert str(caught.value) == "Preprocessor 'x': scope must be one of row, dataset, got 'column'"


def test_lists_of_names_may_be_any_iterable():
    assert Targets(name="x", summary="", model_types=["x"], modules=iter(["a", "b"])).modules == ("a", "b")


def test_each_kind_has_a_hook_named_after_it():
    assert {hook: record.__name__ for hook, record in CONTRIBUTIONS.items()} == {
        "smolora_targets": "Targets",
        "smolora_preprocessors": "Preprocessor",
        "smolora_losses": "Loss",
        "smolora_memory_strategies": "MemoryStrategy",
        "smolora_checkpoint_writers": "CheckpointWriter",
        "smolora_tasks": "Task",
    }
