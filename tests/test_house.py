"""The house: rooms on floors, imports only downward, one idea a module, and a map that is true."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.support.house import CORE, ROOT, arrows, floors, imports, modules

MOST_ROOMS = 22
TOP = {"__init__.py", "__main__.py", "components.py", "errors.py", "hookspecs.py"}
MAP = re.compile(r"^  (\S.*)$", re.MULTILINE)


def map_of_contributing() -> list[list[str]]:
    """The floors as CONTRIBUTING.md draws them, the top one first: names of rooms up to the two spaces before a comment."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = text.partition(f"{CORE}/\n")[2].partition("```")[0]
    return [[name.rstrip("/") for name in re.split(r"\s{2,}#", line)[0].split()] for line in MAP.findall(drawn)]


def test_nothing_imports_upward_or_in_a_circle() -> None:
    graph = arrows()
    assert {room for rooms in floors(graph) for room in rooms} == set(graph)


def test_there_are_few_rooms_and_nothing_stands_outside_of_them() -> None:
    assert {file.name for file in (ROOT / CORE).glob("*.py")} == TOP
    assert len(set(arrows()) - {Path(name).stem for name in TOP}) <= MOST_ROOMS


def test_the_map_shows_every_room_on_its_floor() -> None:
    graph = arrows()
    drawn = map_of_contributing()
    assert sorted(room for floor in drawn for room in floor) == sorted(set(graph) - {"__init__", "__main__"})
    above: set[str] = set()
    for floor in drawn:
        for room in floor:
            assert not set(graph[room]) & (above | set(floor)), f"{room} imports what the map draws beside or above it"
        above.update(floor)


@pytest.mark.parametrize("module", sorted(set(modules()) - {CORE}))
def test_a_module_is_one_idea_of_fifty_to_four_hundred_lines(module: str) -> None:
    lines = modules()[module].read_text(encoding="utf-8").count("\n")
    is_package, is_command = modules()[module].name == "__init__.py", module.startswith(f"{CORE}.cli.")
    assert lines <= 400
    assert lines >= 50 or is_package or is_command or module == f"{CORE}.__main__"


def test_built_in_plugins_use_public_names_only() -> None:
    known = modules()
    for file in sorted((ROOT / "smolora_plugins").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == CORE:
                package = importlib.import_module(node.module or "")
                assert known[node.module or ""].name == "__init__.py", f"{file} imports from inside a room: {node.module}"
                assert {alias.name for alias in node.names} <= {*package.__all__}, f"{file}: {node.module}"
        assert not [name for name in imports(file, known) if isinstance(name, str) and name.count(".") > 1], file


@pytest.mark.parametrize("package", sorted(name for name, file in modules().items() if file.with_suffix(".pyi").exists()))
def test_every_public_name_exists_and_none_hides_a_module(package: str) -> None:
    room = importlib.import_module(package)
    assert room.__all__
    for name in room.__all__:
        assert f"{package}.{name}" not in modules(), f"importing the module {package}.{name} would replace the public name"
        assert getattr(room, name) is not None
