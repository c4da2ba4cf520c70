"""The training loop uses only public names of transformers and accelerate: a private one may go in any release."""

import ast
from pathlib import Path

import pytest

import smolora_core.training

MODULES = sorted(Path(smolora_core.training.__file__).parent.glob("*.py"))
# Of torch and of Python, which have no public name for it.
OTHERS = {"_foreach_add_", "_foreach_mul_", "_exit"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def imported(tree: ast.Module) -> set[str]:
    """Every part of what is imported: modules and names."""
    froms = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    plain = [name.name for each in ast.walk(tree) if isinstance(each, ast.Import) for name in each.names]
    paths = [*plain, *(f"{each.module}.{name.name}" for each in froms for name in each.names)]
    return {part for path in paths for part in path.split(".")}


def used(tree: ast.Module) -> set[str]:
    """Names after a dot, and names that are looked up by a string."""
    strings = {
        argument.value
        for each in ast.walk(tree)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in ("getattr", "setattr", "hasattr")
        for argument in each.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    return strings | {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)}


def defined(tree: ast.Module) -> set[str]:
    """Functions and methods, fields of classes, and what is assigned to self."""
    found = {each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)}
    stored = [each for each in ast.walk(tree) if isinstance(getattr(each, "ctx", None), ast.Store)]
    found |= {each.id for each in stored if isinstance(each, ast.Name)}
    return found | {each.attr for each in stored if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self"}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_private_names_are_our_own(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    assert {name for name in imported(tree) if is_private(name)} == set()
    assert {name for name in used(tree) - defined(tree) if is_private(name)} - OTHERS == set()


@pytest.mark.parametrize(
    "line",
    [
        "from transformers.trainer_utils import _is_peft_model",
        "import accelerate._x",
        "model._hook()",
        "getattr(state, '_state')",
    ],
)
def test_a_private_name_would_be_found(line):
    tree = ast.parse(line)
    assert [name for name in (imported(tree) | used(tree)) - defined(tree) if is_private(name)]
