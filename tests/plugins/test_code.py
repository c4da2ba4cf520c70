"""The digest of a component's code: it changes when the code may do something else, and otherwise does not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolora_core import Preprocessor
from smolora_core.plugins import Origin, Registered, Tier
from smolora_core.plugins.code import code_of, package_digest

SCRIPT = """
import sys
from smolora_core import Preprocessor
from smolora_core.plugins import Origin, Registered, Tier
from smolora_core.plugins.code import code_of
import beside

LIMIT = {limit}

def keep(row):
    return row if len(row["text"]) < LIMIT else beside.drop(row)

record = Preprocessor(name="keep", summary="", implementation=keep)
print(code_of(Registered(record, Origin("mine", Tier.USER))))
"""


def digest(implementation: Callable[..., Any] | str) -> str | None:
    record = Preprocessor(name="mine", summary="", implementation=implementation)
    return code_of(Registered(record, Origin("mine", Tier.USER)))


def adding(number: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, "number": number}


def test_what_a_closure_holds_counts() -> None:
    assert digest(adding(1)) == digest(adding(1))
    assert digest(adding(1)) != digest(adding(2))


def test_what_an_object_keeps_counts() -> None:
    class Keep:
        def __init__(self, limit: int) -> None:
            self.limit = limit

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return row

    assert digest(Keep(1)) == digest(Keep(1))
    assert digest(Keep(1)) != digest(Keep(2))


def test_what_cannot_be_pickled_cannot_be_told() -> None:
    held = (number for number in range(3))
    assert digest(lambda row: next(held)) is None


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Runs a script with a module beside it, in a process of its own."""

    def run(limit: int = 5, beside: str = "def drop(row):\n    return None\n") -> str:
        (tmp_path / "beside.py").write_text(beside)
        (tmp_path / "script.py").write_text(SCRIPT.format(limit=limit))
        command = [sys.executable, "-B", "script.py"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    return run


def test_a_script_is_its_source_and_what_lies_beside_it(script: Callable[..., str]) -> None:
    first = script()
    assert len(first) > 32
    assert script() == first
    assert script(limit=6) != first
    assert script(beside="def drop(row):\n    return row\n") != first


def test_a_package_is_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "wordy"
    (package / "inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/rows.py", "stop_words.txt"):
        (package / file).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("wordy.inner.rows")
    before = digest("wordy.inner.rows:keep")
    assert digest("wordy.inner.rows:other") == before == package_digest("wordy")
    (package / "stop_words.txt").write_text("the")
    assert digest("wordy.inner.rows:keep") != before


def test_a_file_loaded_as_a_plugin_is_its_source(tmp_path: Path) -> None:
    from smolora_core.plugins import PluginChoice, PluginManager

    source = (
        "from smolora_core import Preprocessor, hookimpl\n"
        "def keep(row):\n    return row\n"
        "@hookimpl\ndef smolora_preprocessors():\n"
        "    yield Preprocessor(name='keep', summary='', implementation=keep)\n"
    )

    def loaded() -> str | None:
        manager = PluginManager.create(PluginChoice(files=(tmp_path / "mine.py",)))
        return code_of(manager.registry.resolve(Preprocessor, "keep"))

    (tmp_path / "mine.py").write_text(source)
    before = loaded()
    assert before is not None and loaded() == before
    (tmp_path / "mine.py").write_text(source.replace("return row", "return None"))
    assert loaded() != before
