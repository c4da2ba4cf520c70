"""Where plugins come from: installed distributions, files, objects; and what each is called."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from smolora_core import Loss, PluginError, hookimpl
from smolora_core.plugins import PluginChoice, PluginManager, Tier, build
from smolora_core.plugins.discovery import discover


def find(manager, plugin):
    return next(found for found in manager.plugins if found.origin.plugin == plugin)


def test_an_installed_plugin_is_found_with_its_distribution_version_and_module(site):
    site.add("acme-smolora", "@hookimpl\ndef smolora_losses(): return []", plugin="acme", module="acme_plugin")

    origin = find(PluginManager.create(), "acme").origin

    assert (origin.plugin, origin.distribution, origin.version) == ("acme", "acme-smolora", "1.2")
    assert (origin.tier, origin.location) == (Tier.THIRD_PARTY, "acme_plugin")


def test_an_installed_plugin_is_titled_with_its_distribution_and_version(site):
    site.add("acme-smolora", "", plugin="acme", module="acme_plugin")
    assert find(PluginManager.create(), "acme").origin.title == "plugin 'acme' (acme-smolora 1.2)"


def test_the_built_ins_come_in_through_entry_points_of_smolora_itself():
    built_in = [origin for origin in (found.origin for found in discover()) if origin.tier is Tier.BUILT_IN]

    assert {origin.distribution for origin in built_in} == {"smolora"}
    assert {"losses", "targets", "tasks", "preprocessors", "memory", "checkpoints"} <= {origin.plugin for origin in built_in}


def test_the_order_is_built_ins_first_then_by_distribution(site):
    site.add("zeta", "")
    site.add("acme", "")

    distributions = [found.origin.distribution for found in discover()]

    assert distributions == ["smolora"] * (len(distributions) - 2) + ["acme", "zeta"]


def test_discovery_imports_no_plugin(site):
    site.add("acme", "")
    assert "acme" in [found.origin.plugin for found in discover()]
    assert "acme" not in sys.modules


def test_an_older_distribution_further_down_the_path_is_shadowed(site, tmp_path, monkeypatch):
    site.add_loss("acme", "focal", version="2.0")
    site.folder = tmp_path / "further-down"
    site.add_loss("acme", "focal", version="1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site.folder)])
    importlib.invalidate_caches()

    assert [str(found.origin) for found in discover() if found.origin.plugin == "acme"] == ["acme 2.0"]


def test_a_distribution_without_metadata_does_no_harm(site):
    site.add("acme", "")
    (site.folder / "acme-1.2.dist-info" / "METADATA").unlink()

    assert "acme" in [found.origin.plugin for found in discover()]


def test_the_broken_entry_points_of_somebody_else_do_no_harm(site):
    site.add("acme", "")
    site.add("other", "")
    (site.folder / "other-1.2.dist-info" / "entry_points.txt").write_text("[console_scripts]\nnonsense\n")

    assert "acme" in [found.origin.plugin for found in discover()]


@pytest.fixture
def plugin_file(tmp_path, site):
    path = tmp_path / "my-plugin.py"
    path.write_text(
        "from smolora_core import Loss, hookimpl\n\n\n"
        "@hookimpl\ndef smolora_losses():\n"
        "    yield Loss(name='by-name', summary='', implementation=f'{__name__}:loss')\n"
        "    yield Loss(name='by-value', summary='', implementation=loss)\n\n\n"
        "def loss(logits, targets):\n    return 'called'\n"
    )
    return path


def test_a_file_is_a_plugin_of_the_user(plugin_file):
    origin = find(PluginManager.create(PluginChoice(files=(plugin_file,))), "my-plugin").origin

    assert origin.tier is Tier.USER
    assert origin.title == f"plugin 'my-plugin' ({plugin_file})"


@pytest.mark.parametrize("name", ["by-name", "by-value"])
def test_a_file_names_its_implementation_or_gives_it(plugin_file, name):
    manager = PluginManager.create(PluginChoice(files=(plugin_file,)))

    assert build(manager.registry.resolve(Loss, name))(None, None) == "called"


def test_two_files_of_one_name_keep_to_themselves(tmp_path, site):
    files = tuple(tmp_path / folder / "mine.py" for folder in ("a", "b"))
    for file in files:
        file.parent.mkdir()
        file.write_text(
            "from smolora_core import Loss, hookimpl\n\n\n"
            "@hookimpl\ndef smolora_losses():\n"
            f"    yield Loss(name='{file.parent.name}', summary='', implementation=f'{{__name__}}:loss')\n\n\n"
            f"def loss():\n    return '{file.parent.name}'\n"
        )
    registry = PluginManager.create(PluginChoice(files=files)).registry

    assert [build(registry.resolve(Loss, name))() for name in ("a", "b")] == ["a", "b"]


def test_a_file_given_twice_is_one_plugin(plugin_file):
    manager = PluginManager.create(PluginChoice(files=(plugin_file, plugin_file.parent / "." / plugin_file.name)))
    assert [found.origin.plugin for found in manager.plugins].count("my-plugin") == 1


def test_a_file_that_is_not_there_is_an_error():
    with pytest.raises(PluginError) as caught:
        PluginManager.create(PluginChoice(files=(Path("nowhere.py"),)))
    assert str(caught.value) == "plugin 'nowhere.py' is not an existing .py file"


def test_a_file_that_is_not_python_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(PluginError, match=r"^plugin '.*notes\.txt' is not an existing \.py file$"):
        PluginManager.create(PluginChoice(files=(tmp_path / "notes.txt",)))


class Handed:
    @hookimpl
    def smolora_losses(self):
        yield Loss(name="handed", summary="", implementation=print)


def test_an_object_is_a_plugin_of_the_user():
    origin = find(PluginManager.create(PluginChoice(objects=(Handed(),))), "Handed").origin

    assert origin.tier is Tier.USER
    assert origin.title == "plugin 'Handed' (given from Python)"


def test_a_namespace_of_functions_is_a_plugin():
    @hookimpl
    def smolora_losses():
        yield Loss(name="handed", summary="", implementation=print)

    manager = PluginManager.create(PluginChoice(objects=(SimpleNamespace(smolora_losses=smolora_losses),)))

    assert manager.registry.resolve(Loss, "handed").component.implementation is print
