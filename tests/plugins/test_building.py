"""From a record to the thing itself: import the implementation, bind the options, say whose fault it is."""

import attrs
import pytest

from smolora_core import Loss, PluginError, hookimpl
from smolora_core.plugins import PluginChoice, PluginManager, build

IMPLEMENTATIONS = """
    @attrs.frozen
    class Options:
        gamma: float = 2.0
        _hidden: int = 7

    @attrs.frozen
    class Demanding:
        weights: tuple[float, ...]

    @hookimpl
    def smolora_losses():
        def offer(name, implementation, options=None):
            return Loss(name=name, summary="", implementation=f"acme_impl:{implementation}", options=options)

        yield offer("plain", "plain")
        yield offer("function", "function", Options)
        yield offer("class", "Class", Options)
        yield offer("nested", "Class.Inner.inner")
        yield offer("demanding", "function", Demanding)
        yield offer("misspelt", "functoin")
        yield offer("constant", "CONSTANT")
        yield offer("fragile", "Fragile")
        yield Loss(name="broken", summary="", implementation="acme_broken:loss")
        yield Loss(name="missing", summary="", implementation="acme_missing:loss")
        yield Loss(name="quitting", summary="", implementation="acme_quitting:loss")
"""

MODULE = """
CONSTANT = 3

def plain(*arguments): return arguments

def function(*arguments, **options): return arguments, options

class Class:
    def __init__(self, gamma, hidden): self.options = gamma, hidden
    class Inner:
        def inner(): return "inner"

class Fragile:
    def __init__(self): raise ZeroDivisionError("ouch")
"""


@pytest.fixture
def registry(site):
    site.add("acme", IMPLEMENTATIONS)
    (site.folder / "acme_impl.py").write_text(MODULE)
    (site.folder / "acme_broken.py").write_text("1 / 0")
    (site.folder / "acme_quitting.py").write_text("raise SystemExit(0)")
    manager = PluginManager.create()
    assert manager.problems == ()
    return manager.registry


def test_a_function_without_options_is_given_as_it_is(registry):
    assert build(registry.resolve(Loss, "plain"))("logits", "targets") == ("logits", "targets")


def test_a_function_gets_the_defaults_of_its_options_by_keyword(registry):
    assert build(registry.resolve(Loss, "function"))("logits") == (("logits",), {"gamma": 2.0, "hidden": 7})


def test_a_function_gets_the_options_that_were_chosen(registry):
    chosen = registry.resolve(Loss, "function")
    assert build(chosen, chosen.component.options(gamma=5.0))() == ((), {"gamma": 5.0, "hidden": 7})


def test_a_class_is_made_with_its_options(registry):
    chosen = registry.resolve(Loss, "class")
    assert build(chosen, chosen.component.options(gamma=5.0)).options == (5.0, 7)


def test_an_implementation_may_be_an_attribute_of_an_attribute(registry):
    assert build(registry.resolve(Loss, "nested"))() == "inner"


def test_a_callable_handed_over_is_the_implementation():
    class Mine:
        @hookimpl
        def smolora_losses(self):
            yield Loss(name="mine", summary="", implementation=max)

    registry = PluginManager.create(PluginChoice(objects=(Mine(),))).registry

    assert build(registry.resolve(Loss, "mine")) is max


def test_values_of_options_are_not_taken_apart():
    @attrs.frozen
    class Inner:
        x: int = 1

    @attrs.frozen
    class Options:
        inner: Inner = Inner()

    class Mine:
        @hookimpl
        def smolora_losses(self):
            yield Loss(name="mine", summary="", implementation=lambda inner: inner, options=Options)

    registry = PluginManager.create(PluginChoice(objects=(Mine(),))).registry

    assert build(registry.resolve(Loss, "mine"))() == Inner()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("misspelt", "acme_impl has no attribute 'functoin'; did you mean 'function'?"),
        ("constant", "acme_impl:CONSTANT is neither a function nor a class"),
        ("demanding", "missing required options: 'weights'"),
        ("missing", "acme_missing cannot be imported (ModuleNotFoundError: No module named 'acme_missing')"),
    ],
)
def test_an_implementation_that_cannot_be_used_is_an_error_that_names_the_plugin(registry, name, message):
    with pytest.raises(PluginError) as caught:
        build(registry.resolve(Loss, name))
    assert str(caught.value) == f"loss '{name}' of plugin 'acme' (acme 1.2): {message}"


def test_an_implementation_that_exits_at_import_is_named(registry):
    with pytest.raises(PluginError) as caught:
        build(registry.resolve(Loss, "quitting"))
    assert str(caught.value) == "plugin 'acme' (acme 1.2): called sys.exit(0) while importing acme_quitting"


@pytest.mark.parametrize(
    ("name", "doing"), [("fragile", "building 'fragile'"), ("broken", "importing acme_broken")], ids=["making", "importing"]
)
def test_an_exception_of_an_implementation_keeps_its_type_and_says_whose_it_is(registry, name, doing):
    with pytest.raises(ZeroDivisionError) as caught:
        build(registry.resolve(Loss, name))
    assert caught.value.__notes__ == [f"raised by plugin 'acme' (acme 1.2) while {doing}"]
