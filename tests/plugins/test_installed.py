"""Two separate distributions, built by hatchling and installed by pip, as a user would have them."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.slow

LOOK = """
import json, sys
from smolora_core import Loss
from smolora_core.plugins import PluginChoice, PluginManager

manager = PluginManager.create(PluginChoice(disable=tuple(sys.argv[1:])))
print(json.dumps({
    "plugins": {found.origin.plugin: [str(found.origin), found.state] for found in manager.plugins},
    "losses": {found.component.name: str(found.origin) for found in manager.registry.of_kind(Loss)},
    "problems": [str(problem) for problem in manager.problems],
    "imported": sorted({"acme_smolora", "broken_smolora", "torch"} & set(sys.modules)),
}))
"""

BUILD = """
import torch
from smolora_core import Loss
from smolora_core.plugins import PluginManager, build

chosen = PluginManager.create().registry.resolve(Loss, "smooth")
loss = build(chosen, chosen.component.options(amount=0.0))
print(loss(torch.zeros(3, 4), torch.tensor([0, 1, 2])).tolist())
"""


def run(python, code, *arguments):
    done = subprocess.run([python, "-P", "-c", code, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_the_component_of_an_installed_package_is_there_with_its_version(installed_python):
    assert run(installed_python, LOOK)["losses"]["smooth"] == "acme-smolora 1.4"


def test_listing_imports_the_plugin_but_not_its_implementation(installed_python):
    assert run(installed_python, LOOK)["imported"] == ["acme_smolora"]


def test_a_blocked_package_is_not_imported(installed_python):
    seen = run(installed_python, LOOK, "acme-smolora")

    assert seen["plugins"]["acme"] == ["acme-smolora 1.4", "blocked"]
    assert "smooth" not in seen["losses"]
    assert "acme_smolora" not in seen["imported"]


def test_a_package_that_cannot_be_imported_is_one_problem_and_disturbs_nobody(installed_python):
    seen = run(installed_python, LOOK)

    assert seen["problems"] == [
        "plugin 'broken' (broken-smolora 0.9): cannot be imported (ImportError: needs a library that is not installed)"
    ]
    assert seen["plugins"]["broken"] == ["broken-smolora 0.9", "failed"]
    assert seen["plugins"]["acme"] == ["acme-smolora 1.4", "loaded"]


def test_the_loss_of_an_installed_package_computes(installed_python):
    assert run(installed_python, BUILD) == pytest.approx([1.3862943] * 3)
