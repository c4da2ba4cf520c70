"""The digest of a component's code: it changes when the code may do something else, and otherwise does not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolora_core import Preprocessor
from smolora_core.plugins import Origin, Registered, Tier
from smolora_core.plugins.source_digest import code_of, package_digest

SCRIPT = """
import sys
from smolora_core import Preprocessor
from smolora_core.plugins import Origin, Registered, Tier
from smolora_core.plugins.source_digest import code_of
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


def test_a_helper_imported_late_and_from_elsewhere_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "late_helper.py").write_text("import further_helper\n")
    (tmp_path / "elsewhere" / "further_helper.py").write_text("WORDS = 1\n")
    (tmp_path / "late_step.py").write_text("def keep(row):\n    import late_helper\n    return row\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    __import__("late_step")
    before = digest("late_step:keep")
    assert digest("late_step:keep") == before
    (tmp_path / "elsewhere" / "further_helper.py").write_text("WORDS = 2\n")
    assert digest("late_step:keep") != before


def test_sets_have_one_digest_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "sets.py").write_text(
        "from smolora_core import Preprocessor\n"
        "from smolora_core.plugins import Origin, Registered, Tier\n"
        "from smolora_core.plugins.source_digest import code_of\n"
        "class Kept:\n"
        "    words = None\n"
        "    def __call__(self, row):\n"
        "        return row\n"
        "kept = Kept()\n"
        "kept.words = {'aa', 'bb', 'cc', 'dd', 'ee'}\n"
        "for step in (lambda row: row['text'] not in {'aa', 'bb', 'cc', 'dd', 'ee'}, kept):\n"
        "    record = Preprocessor(name='mine', summary='', implementation=step)\n"
        "    print(code_of(Registered(record, Origin('mine', Tier.USER))))\n"
    )
    found = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, str(tmp_path / "sets.py")]
        found.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 1 and "None" not in found.pop()
