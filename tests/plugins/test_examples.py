"""The examples in the docstrings of hooks, records, sections and errors run."""

import doctest
import importlib
from textwrap import dedent
from types import ModuleType

import pytest

from smolora_core import hookspecs
from smolora_core.plugins import PluginChoice, PluginManager

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("smolora_")}

IMPORTS = """
import gc
import attrs
from smolora_core import CheckpointWriter, Loss, MemoryStrategy, Preprocessor, Problem, Targets, Task, hookimpl
class TrainerCallback: ...
"""


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_of_a_hook_is_a_plugin_without_problems(name):
    plugin = ModuleType("example")
    exec(IMPORTS + dedent(HOOKS[name].__doc__.partition("Example:\n")[2]), vars(plugin))
    assert hasattr(plugin, name)

    assert PluginManager.create(PluginChoice(objects=(plugin,))).problems == ()


@pytest.mark.parametrize("module", ["components", "errors", "config.sections", "plugins.manager"])
def test_the_examples_of_a_module_say_what_happens(module):
    result = doctest.testmod(importlib.import_module(f"smolora_core.{module}"))
    assert (result.failed, result.attempted > 0) == (0, True)
