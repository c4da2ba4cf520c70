"""One door: the core does not know its own built-ins, and nothing heavy comes in before a component is chosen."""

import subprocess
import sys
from pathlib import Path

import pytest

import smolora_core

CORE = Path(smolora_core.__file__).parent


@pytest.mark.parametrize("source", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_never_names_the_package_of_the_built_ins(source):
    assert "smolora_plugins" not in source.read_text(encoding="utf-8")


def heavy_modules_after(code):
    heavy = ("torch", "transformers", "peft", "trl", "datasets", "numpy", "accelerate", "safetensors")
    code += f"\nimport sys; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_imports_nothing_heavy():
    assert heavy_modules_after("import smolora_core") == []


def test_listing_plugins_and_their_components_imports_nothing_heavy():
    listing = """
from smolora_core.plugins import PluginManager
manager = PluginManager.create()
assert len([(found.component.name, found.component.summary, str(found.origin)) for found in manager.registry]) > 5
"""
    assert heavy_modules_after(listing) == []


def test_building_a_component_imports_what_it_needs():
    building = """
from smolora_core import Loss
from smolora_core.plugins import PluginManager, build
build(PluginManager.create().registry.resolve(Loss, "cross-entropy"))
"""
    assert "torch" in heavy_modules_after(building)
