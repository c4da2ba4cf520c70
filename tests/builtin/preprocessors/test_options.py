"""What a config may give the built-in steps, and what it is told otherwise."""

import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from smolora_core import ConfigError, Preprocessor
from smolora_core.plugins import PluginManager
from smolora_plugins.preprocessors import smolora_preprocessors

RECORDS = {record.name: record for record in smolora_preprocessors()}
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "prepare-data.md"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rename", {}, "key 'columns' is missing"),
        ("rename", {"columns": {}}, "columns must not be empty"),
        ("rename", {"columns": {"a": "c", "b": "c"}}, "columns renames two columns to 'c'"),
        ("combine-fields", {"fields": []}, "fields must not be empty"),
        ("template", {"text": "a\n{% shout %}"}, "text is not a valid template, line 2: Encountered unknown tag 'shout'"),
        ("template", {"text": "{{ a | shout }}"}, "text is not a valid template, line 1: No filter named 'shout'"),
        ("template", {"text": "{{ a | random }}"}, "text is not a valid template, line 1: No filter named 'random'"),
        ("chunk-words", {}, "key 'size' is missing"),
        ("chunk-words", {"size": 0}, "size must be above 0, got 0"),
        ("chunk-words", {"size": 3, "overlap": -1}, "overlap must be at least 0, got -1"),
        ("chunk-words", {"size": 3, "overlap": 3}, "overlap must be below size 3, got 3"),
        ("chunk-tokens", {"size": 0}, "size must be above 0, got 0"),
        ("chunk-tokens", {"size": 3, "overlap": 4}, "overlap must be below size 3, got 4"),
        ("near-dedup", {"threshold": 0}, "threshold must be between 0 and 1, got 0.0"),
        ("near-dedup", {"threshold": 1}, "threshold must be between 0 and 1, got 1.0"),
        ("near-dedup", {"shingle": 0}, "shingle must be above 0, got 0"),
        ("filter-length", {}, "set minimum, maximum or both"),
        ("filter-length", {"minimum": 0}, "minimum must be above 0, got 0"),
        ("filter-length", {"minimum": 5, "maximum": 4}, "minimum 5 is greater than maximum 4"),
        ("filter-length", {"minimum": 5, "unit": "lines"}, "unit must be one of words, characters, tokens, got 'lines'"),
        ("sample", {}, "set fraction, rows or both"),
        ("sample", {"fraction": 1.5}, "fraction must be between 0 and 1, got 1.5"),
        ("sample", {"fraction": float("nan")}, "fraction must be between 0 and 1, got nan"),
        ("sample", {"rows": 0}, "rows must be above 0, got 0"),
        ("split", {}, "key 'fraction' is missing"),
        ("split", {"fraction": 0}, "fraction must be between 0 and 1, got 0.0"),
        ("split", {"fraction": 0.1, "keep": "eval"}, "keep must be one of train, held-out, got 'eval'"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_the_config(step, name, options, message):
    with pytest.raises(ConfigError) as caught:
        step(name, **options)
    assert str(caught.value) == message


def test_every_built_in_step_is_offered():
    registry = PluginManager.create().registry
    assert {found.component.name for found in registry.of_kind(Preprocessor)} >= set(RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_the_how_to_has_a_line_with_every_option(name):
    (line,) = re.findall(rf"^\| `{name}` \|.*$", PAGE.read_text(encoding="utf-8"), re.M)
    options = attrs.fields(RECORDS[name].options) if RECORDS[name].options else ()
    assert [option.name for option in options if f"`{option.name}`" not in line] == []


def test_steps_that_are_not_chosen_import_nothing():
    code = (
        "import sys, smolora_plugins.preprocessors as built_in; list(built_in.smolora_preprocessors());"
        "print({'jinja2', 'datasketch', 'numpy', 'torch'} & set(sys.modules) or 'nothing')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "nothing\n"
