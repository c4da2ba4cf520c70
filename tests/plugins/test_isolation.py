"""A plugin that misbehaves is one problem of its own: it is named, and everybody else goes on."""

import threading

import attrs
import pytest

from smolora_core import Loss, Targets, hookimpl
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_core.plugins.discovery import Candidate, Origin, Tier
from smolora_core.plugins.loading import load

GOOD = """
    @hookimpl
    def smolora_targets():
        yield Targets(name="sound", summary="", model_types=("sound",), modules=("q_proj",))
"""


def problems(manager):
    return [str(problem) for problem in manager.problems]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def broken(:", "SyntaxError: invalid syntax (bad.py, line 3)"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise RuntimeError('first line\\n  second line')", "RuntimeError: first line second line"),
        ("raise ValueError", "ValueError"),
        ("class Odd(BaseException): pass\nraise Odd('panic')", "Odd: panic"),
    ],
)
def test_whatever_an_import_raises_is_reported_and_the_others_load(site, source, cause):
    site.add("bad", source)
    site.add("good", GOOD)

    manager = PluginManager.create()

    assert problems(manager) == [f"plugin 'bad' (bad 1.2): cannot be imported ({cause})"]
    assert str(manager.registry.resolve(Targets, "sound").origin) == "good 1.2"


def test_ctrl_c_during_an_import_is_not_swallowed(site):
    site.add("bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        PluginManager.create()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('no')", "smolora_losses raised ValueError: no"),
        ("raise SystemExit(3)", "smolora_losses raised SystemExit: 3"),
        ("return None", "smolora_losses returned None; it must return an iterable of Loss records"),
        ("return 3", "smolora_losses returned int; it must return an iterable of Loss records"),
        ("return 'hinge'", "smolora_losses returned str; it must return an iterable of Loss records"),
        ("return LOSS", "smolora_losses returned Loss; it must return an iterable of Loss records"),
        ("return ['hinge']", "smolora_losses returned str; it must return Loss records"),
        ("return [LOSS, LOSS]", "smolora_losses returned two records named 'hinge'; only the first is used"),
        ("return [Loss(name='hinge')]", "smolora_losses raised TypeError: Loss.__init__() missing 2 required keyword-only "),
        ("return [LOSS.nothing]", "smolora_losses raised AttributeError: 'Loss' object has no attribute 'nothing'"),
    ],
)
def test_whatever_a_hook_does_is_reported_and_the_other_hooks_count(site, body, problem):
    site.add("acme", f"LOSS = Loss(name='hinge', summary='', implementation=print)\n@hookimpl\ndef smolora_losses(): {body}")
    path = site.folder / "acme.py"
    path.write_text(path.read_text() + GOOD.replace("\n    ", "\n"))

    manager = PluginManager.create()

    assert len(manager.problems) == 1
    assert problems(manager)[0].startswith(f"plugin 'acme' (acme 1.2): {problem}")
    assert str(manager.registry.resolve(Targets, "sound").origin) == "acme 1.2"


def test_a_record_of_another_kind_is_reported(site):
    site.add(
        "acme",
        """
        @hookimpl
        def smolora_losses():
            yield Targets(name="misplaced", summary="", model_types=(), modules=())
            yield Loss(name="hinge", summary="", implementation=print)
        """,
    )
    manager = PluginManager.create()

    assert problems(manager) == ["plugin 'acme' (acme 1.2): smolora_losses returned Targets; it must return Loss records"]
    assert manager.registry.resolve(Loss, "hinge")


def test_a_record_that_cannot_be_made_is_named(site):
    site.add("acme", "@hookimpl\ndef smolora_losses(): yield Loss(name='Focal Loss', summary='', implementation=print)")
    assert problems(PluginManager.create()) == [
        "plugin 'acme' (acme 1.2): Loss 'Focal Loss': a name may contain only a-z, 0-9 and -; write 'focal-loss'"
    ]


def test_records_before_the_one_that_fails_count(site):
    site.add(
        "acme",
        """
        @hookimpl
        def smolora_losses():
            yield Loss(name="hinge", summary="", implementation=print)
            raise ValueError("no more")
        """,
    )
    assert PluginManager.create().registry.resolve(Loss, "hinge")


@attrs.define
class Unhashable:
    name: str

    @hookimpl
    def smolora_losses(self):
        yield Loss(name=self.name, summary="", implementation=print)


def test_plugin_objects_need_not_be_hashable():
    registry = PluginManager.create(PluginChoice(objects=(Unhashable("a"), Unhashable("b")))).registry
    assert registry.resolve(Loss, "a").component.name + registry.resolve(Loss, "b").component.name == "ab"


def test_plugin_objects_that_are_equal_are_two():
    manager = PluginManager.create(PluginChoice(objects=(Unhashable("a"), Unhashable("a"))))
    assert [found.state for found in manager.plugins if found.origin.plugin == "Unhashable"] == ["loaded", "loaded"]


def test_properties_of_a_plugin_object_are_not_evaluated():
    class Lazy:
        @property
        def model(self):
            raise RuntimeError("too early")

        @hookimpl
        def smolora_losses(self):
            return []

    assert PluginManager.create(PluginChoice(objects=(Lazy(),))).problems == ()


def test_attributes_that_a_module_loads_lazily_are_not_loaded(site):
    site.add(
        "acme",
        """
        @hookimpl
        def smolora_losses():
            return []

        def __getattr__(name):
            raise RuntimeError("too early")

        def __dir__():
            return ["Heavy", "smolora_losses", "smolora_lazy"]
        """,
    )
    assert PluginManager.create().problems == ()


def test_a_plugin_that_hangs_at_import_is_named_in_time():
    imported, lines = threading.Event(), []

    def warn(line):
        lines.append(line)
        imported.set()

    origin = Origin("acme", Tier.THIRD_PARTY, "acme-smolora", "1.2")

    load(Candidate(origin, lambda: imported.wait(timeout=30)), warn, warn_after=0.01)

    assert lines == ["plugin 'acme' (acme-smolora 1.2) is still importing after 0.01 s"]


def test_a_plugin_that_imports_quickly_is_not_complained_about(site):
    lines = []
    site.add("acme", "")
    PluginManager.create(warn=lines.append)
    assert lines == []


def test_the_time_of_an_import_is_known(site):
    site.add("acme", "import time; time.sleep(0.05)")
    assert next(found.seconds for found in PluginManager.create().plugins if found.origin.plugin == "acme") >= 0.05
