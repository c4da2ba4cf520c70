"""The hooks: what each of them brings, and what is said of functions that are nearly one."""

import pytest

from smolora_core import CheckpointWriter, Loss, MemoryStrategy, Preprocessor, Problem, Targets, Task, hookimpl
from smolora_core.plugins import PluginChoice, PluginManager

EVERY_KIND = """
    @hookimpl
    def smolora_targets():
        yield Targets(name="new", summary="", model_types=("new_model",), modules=("q_proj",))

    @hookimpl
    def smolora_preprocessors():
        yield Preprocessor(name="new", summary="", implementation="acme:anything", scope="dataset")

    @hookimpl
    def smolora_losses():
        yield Loss(name="new", summary="", implementation="acme:anything", kind="prediction", columns=["weight"])

    @hookimpl
    def smolora_memory_strategies():
        yield MemoryStrategy(name="new", summary="", implementation="acme:anything", devices=("cpu",))

    @hookimpl
    def smolora_checkpoint_writers():
        yield CheckpointWriter(name="new", summary="", implementation="acme:anything")

    @hookimpl
    def smolora_tasks():
        yield Task(name="new", summary="", implementation="acme:anything", model_class="AutoModel", loss="new")
"""


@pytest.mark.parametrize("kind", [Targets, Preprocessor, Loss, MemoryStrategy, CheckpointWriter, Task])
def test_each_contribution_hook_brings_its_kind_of_record(site, kind):
    site.add("acme", EVERY_KIND)

    manager = PluginManager.create()

    assert manager.problems == ()
    assert type(manager.registry.resolve(kind, "new").component) is kind


def problems(site, source):
    site.add("acme", source)
    return [str(problem).removeprefix("plugin 'acme' (acme 1.2): ") for problem in PluginManager.create().problems]


def test_a_misspelt_hook_is_reported(site):
    assert problems(site, "@hookimpl\ndef smolora_loses(): return []") == [
        "smolora_loses is not a hook; did you mean 'smolora_losses'?"
    ]


def test_a_hook_for_a_later_version_can_be_marked_optional(site):
    assert problems(site, "@hookimpl(optionalhook=True)\ndef smolora_telepathy(): return []") == []


def test_a_function_without_the_mark_is_reported(site):
    assert problems(site, "def smolora_losses(): return []") == ["smolora_losses never runs; decorate it with @hookimpl"]


def test_a_plugin_without_any_hook_is_reported(site):
    assert problems(site, "x = 1") == ["implements no hooks; decorate a smolora_* function with @hookimpl"]


def test_a_hook_under_another_name_counts(site):
    assert problems(site, "@hookimpl(specname='smolora_losses')\ndef offer(): return []") == []


@pytest.mark.parametrize(
    ("signature", "problem"),
    [
        ("smolora_check_config(confg)", "smolora_check_config has no argument 'confg'; did you mean 'config'?"),
        ("smolora_callbacks(trainer)", "smolora_callbacks has no argument 'trainer'; known: row_format, run"),
        ("smolora_losses(config)", "smolora_losses has no argument 'config'; it takes none"),
        ("smolora_adapter_attached(modl=None)", "smolora_adapter_attached has no argument 'modl'; did you mean 'model'?"),
    ],
)
def test_an_argument_that_a_hook_does_not_have_is_reported(site, signature, problem):
    assert problems(site, f"@hookimpl\ndef {signature}: return []") == [problem]


def test_a_plugin_whose_hook_wants_what_nobody_gives_is_failed(site):
    site.add("acme", "@hookimpl\ndef smolora_callbacks(trainer): return []")
    assert [found.state for found in PluginManager.create().plugins if found.origin.plugin == "acme"] == ["failed"]


def test_a_hook_may_leave_out_arguments_and_take_any(site):
    assert (
        problems(site, "@hookimpl\ndef smolora_adapter_attached(): pass\n@hookimpl\ndef smolora_callbacks(**rest): return []")
        == []
    )


class Listener:
    def __init__(self):
        self.heard = []

    @hookimpl
    def smolora_check_config(self, config):
        yield Problem(f"{config} is not to my liking")

    @hookimpl
    def smolora_callbacks(self, run):
        return [f"callback of {run}"]

    @hookimpl
    def smolora_adapter_attached(self, model, run):
        self.heard.append((model, run))

    @hookimpl
    def smolora_run_finished(self, outcome):
        self.heard.append(outcome)


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def manager(listener):
    return PluginManager.create(PluginChoice(objects=(listener,), disable=("smolora",)))


def test_check_config_is_asked_for_problems(manager):
    [(origin, problems)] = manager.call_hook("smolora_check_config", config="config")
    assert origin.plugin == "Listener"
    assert problems == (Problem("config is not to my liking"),)


def test_callbacks_are_asked_for(manager):
    [(origin, callbacks)] = manager.call_hook("smolora_callbacks", run="run", row_format="text")
    assert (origin.plugin, callbacks) == ("Listener", ["callback of run"])


def test_adapter_attached_is_told_with_model_and_run(manager, listener):
    manager.call_hook("smolora_adapter_attached", model="model", run="run")
    assert listener.heard == [("model", "run")]


def test_run_finished_is_told_with_the_arguments_that_a_plugin_wants(manager, listener):
    manager.call_hook("smolora_run_finished", run="run", outcome="outcome")
    assert listener.heard == ["outcome"]


class Failing:
    @hookimpl
    def smolora_check_config(self, config):
        yield Problem("fine so far")
        raise LookupError("lost")

    @hookimpl
    def smolora_run_finished(self, run):
        raise LookupError("lost")


def test_an_exception_of_an_event_hook_keeps_its_type_and_says_whose_it_is():
    manager = PluginManager.create(PluginChoice(objects=(Failing(),), disable=("smolora",)))
    with pytest.raises(LookupError) as caught:
        manager.call_hook("smolora_run_finished", run=None, outcome=None)
    assert caught.value.__notes__ == ["raised by plugin 'Failing' (given from Python) while calling smolora_run_finished"]


def test_an_exception_in_the_middle_of_a_generator_says_whose_it_is():
    manager = PluginManager.create(PluginChoice(objects=(Failing(),), disable=("smolora",)))
    with pytest.raises(LookupError) as caught:
        manager.call_hook("smolora_check_config", config=None)
    assert caught.value.__notes__ == ["raised by plugin 'Failing' (given from Python) while calling smolora_check_config"]


def test_a_plugin_that_raises_keeps_no_other_from_being_told(listener):
    manager = PluginManager.create(PluginChoice(objects=(Failing(), listener), disable=("smolora",)))
    with pytest.raises(LookupError):
        manager.call_hook("smolora_run_finished", run=None, outcome="outcome")
    assert listener.heard == ["outcome"]


def test_when_several_plugins_raise_the_first_exception_tells_of_the_others(site):
    site.add("acme", "@hookimpl\ndef smolora_run_finished(): raise ValueError('mine')")
    manager = PluginManager.create(PluginChoice(objects=(Failing(),), disable=("smolora",)))
    with pytest.raises(ValueError, match="mine") as caught:
        manager.call_hook("smolora_run_finished", run=None, outcome=None)
    assert caught.value.__notes__ == [
        "raised by plugin 'acme' (acme 1.2) while calling smolora_run_finished",
        "followed by LookupError: lost, raised by plugin 'Failing' (given from Python) while calling smolora_run_finished",
    ]
