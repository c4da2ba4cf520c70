"""What the user blocks, requires and is strict about."""

import sys

import pytest

from smolora_core import Loss, PluginError, hookimpl
from smolora_core.plugins import PluginChoice, PluginManager


def states(manager):
    return {found.origin.plugin: found.state for found in manager.plugins}


@pytest.fixture
def acme(site):
    site.add("acme-smolora", "@hookimpl\ndef smolora_losses(): return []", plugin="acme", module="acme_module")


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("name", ["acme", "acme-smolora", "acme-smolora:acme", "Acme_SmoLoRA"])
def test_a_blocked_plugin_is_never_imported(name):
    manager = PluginManager.create(PluginChoice(disable=(name,)))

    assert states(manager)["acme"] == "blocked"
    assert "acme_module" not in sys.modules


@pytest.mark.usefixtures("acme")
def test_the_environment_blocks(monkeypatch):
    monkeypatch.setenv("SMOLORA_DISABLE_PLUGINS", "losses, acme")

    manager = PluginManager.create()

    assert (states(manager)["losses"], states(manager)["acme"]) == ("blocked", "blocked")
    assert "acme_module" not in sys.modules


def test_an_unknown_name_in_the_environment_is_reported_once(monkeypatch):
    monkeypatch.setenv("SMOLORA_DISABLE_PLUGINS", "looses")
    manager = PluginManager.create(PluginChoice().with_environment())
    assert list(map(str, manager.problems)) == ["cannot disable unknown plugin 'looses'; did you mean 'losses'?"]


@pytest.mark.usefixtures("acme")
def test_without_third_parties_only_built_ins_and_what_was_handed_over_load():
    class Mine:
        @hookimpl
        def smolora_losses(self):
            return []

    manager = PluginManager.create(PluginChoice(third_party=False, objects=(Mine(),)))

    assert (states(manager)["losses"], states(manager)["acme"], states(manager)["Mine"]) == ("loaded", "blocked", "loaded")
    assert "acme_module" not in sys.modules


@pytest.mark.usefixtures("acme")
def test_a_built_in_can_be_blocked():
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(disable=("losses",))).registry.resolve(Loss, "cross-entropy")
    assert str(caught.value).startswith("no loss is named 'cross-entropy'; not loaded: plugin 'losses' (smolora ")
    assert str(caught.value).endswith("): is blocked")


@pytest.mark.usefixtures("acme")
def test_blocking_a_name_that_nobody_has_is_reported():
    manager = PluginManager.create(PluginChoice(disable=("acmee",)))
    assert list(map(str, manager.problems)) == ["cannot disable unknown plugin 'acmee'; did you mean 'acme'?"]


@pytest.mark.usefixtures("acme")
def test_a_blocked_plugin_keeps_its_place_in_the_listing():
    order = [found.origin for found in PluginManager.create().plugins]
    assert [found.origin for found in PluginManager.create(PluginChoice(disable=("losses",))).plugins] == order


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize("name", ["acme", "acme-smolora"])
def test_a_required_plugin_that_loads_is_fine(name):
    assert states(PluginManager.create(PluginChoice(require=(name,))))["acme"] == "loaded"


@pytest.mark.usefixtures("acme")
def test_a_required_plugin_that_is_missing_stops():
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(require=("acmee",)))
    assert str(caught.value) == "required plugin 'acmee' is not installed; did you mean 'acme'?"


@pytest.mark.usefixtures("acme")
def test_a_required_plugin_that_is_blocked_stops():
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(require=("acme",), disable=("acme",)))
    assert str(caught.value) == "plugin 'acme' (acme-smolora 1.2): is both required and blocked; remove one of the two"


def test_a_required_plugin_that_fails_stops(site):
    site.add("acme", "import nowhere")
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(require=("acme",)))
    assert str(caught.value) == (
        "plugin 'acme' (acme 1.2): is required, but cannot be imported (ModuleNotFoundError: No module named 'nowhere')"
    )


def test_everything_wrong_with_required_plugins_is_said_at_once(site):
    site.add("acme", "import nowhere")
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(require=("acme", "zeta-plugins")))
    assert len(caught.value.problems) == 2


def test_a_file_that_was_handed_over_and_fails_stops(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import nowhere")
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(files=(path,)))
    assert str(caught.value) == (f"plugin 'mine' ({path}): cannot be imported (ModuleNotFoundError: No module named 'nowhere')")


def test_a_failed_plugin_that_nobody_asked_for_is_only_reported(site):
    site.add("acme", "import nowhere")

    manager = PluginManager.create()

    assert list(map(str, manager.problems)) == [
        "plugin 'acme' (acme 1.2): cannot be imported (ModuleNotFoundError: No module named 'nowhere')"
    ]


def test_a_strict_user_gets_every_problem_as_an_error(site):
    site.add("acme", "import nowhere")
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(strict=True, disable=("zeta-plugins",)))
    assert [problem.what for problem in caught.value.problems] == [
        "cannot disable unknown plugin 'zeta-plugins'",
        "cannot be imported (ModuleNotFoundError: No module named 'nowhere')",
    ]


@pytest.mark.usefixtures("acme")
def test_a_strict_user_with_sound_plugins_gets_none():
    assert PluginManager.create(PluginChoice(strict=True)).problems == ()
