"""Other libraries print nothing during a run, on a terminal and in a notebook, and work as before afterwards."""

import subprocess
import sys
import warnings
from pathlib import Path

import datasets
import pytest
from datasets.utils import tqdm as datasets_bar
from huggingface_hub import utils as hub
from transformers import logging

from smolora_core.report import silence_libraries

# The modules of IPython that other libraries look for; without ipywidgets, tqdm warns.
NOTEBOOK = """
import builtins, sys, types
from importlib.machinery import ModuleSpec

class ZMQInteractiveShell:
    config = {"IPKernelApp": {}}

def module(name, **contents):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(contents, __spec__=ModuleSpec(name, None))
    return sys.modules[name]

builtins.get_ipython = ZMQInteractiveShell
display = module("IPython.display", display=print, HTML=str)
module("IPython", get_ipython=get_ipython, display=display, version_info=(9, 0))
module("ipykernel")
module("ipykernel.zmqshell")
"""
RUN = """
import smolora_core
lora = smolora_core.SmoLoRA("./tiny", "rows.jsonl", output_dir="out", training={"max_steps": 1})
lora.train()
lora.merge("merged")
smolora_core.load("out/adapter")
"""
AFTERWARDS = """
import datasets, transformers
from transformers.utils import logging
assert datasets.is_progress_bar_enabled() and logging.is_progress_bar_enabled()
assert logging.get_verbosity() == logging.WARNING
"""


@pytest.fixture
def shown(tmp_path: Path, llama: Path):
    """Run a script next to a model and rows; return what it printed, which nothing was on stderr."""
    (tmp_path / "tiny").symlink_to(llama)
    (tmp_path / "rows.jsonl").write_text('{"text": "the film was good"}\n' * 8)

    def run(script: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run


def test_from_python_nothing_is_printed_and_settings_are_as_before(shown):
    assert shown(RUN + AFTERWARDS) == []


def test_a_notebook_shows_lines_of_the_run_alone(shown):
    lines = shown(NOTEBOOK + RUN)
    assert lines[0] == "  status   loading libraries"
    assert "  status   loading the model" in lines
    assert all(line.startswith("  ") for line in lines)


@pytest.fixture
def _as_before():
    """Leave the settings as they were, whatever a test makes of them."""
    with silence_libraries():
        yield


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("of_hub", [True, False])
def test_settings_are_restored(enabled, of_hub):
    (logging.enable_progress_bar if enabled else logging.disable_progress_bar)()
    (datasets.enable_progress_bars if enabled else datasets.disable_progress_bars)()
    (hub.enable_progress_bars if of_hub else hub.disable_progress_bars)()
    logging.set_verbosity_info()
    with silence_libraries():
        assert not logging.is_progress_bar_enabled()
        assert datasets.are_progress_bars_disabled() and hub.are_progress_bars_disabled()
        assert logging.get_verbosity() == logging.ERROR
    assert logging.is_progress_bar_enabled() is enabled
    assert datasets.is_progress_bar_enabled() is enabled
    assert hub.are_progress_bars_disabled() is not of_hub
    assert logging.get_verbosity() == logging.INFO


@pytest.mark.usefixtures("_as_before")
def test_bars_and_warnings_are_silent_and_return(capsys):
    datasets.enable_progress_bars()
    warnings.simplefilter("default")
    with silence_libraries():
        list(datasets_bar(range(2)))
        warnings.warn("of a library", stacklevel=1)
    assert capsys.readouterr() == ("", "")
    list(datasets_bar(range(2)))
    assert "2/2" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="of a library"):
        warnings.warn("of a library", stacklevel=1)
