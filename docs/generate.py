"""Write the references that are made from the code: `python docs/generate.py`. A test holds that they are up to date."""

import ast
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs

from smolora_core.cli import make_app
from smolora_core.config import RunConfig, Selection
from smolora_core.config import sections as model

HERE = Path(__file__).parent / "reference"


def config_page() -> str:
    """Every config key with its type, default and meaning."""
    lines = [
        "# Config",
        "",
        "YAML or TOML. Every key is also a flag: `--lora.r 16`. Options of a component stand beside its name,",
        "`loss: {name: focal, gamma: 1.5}`, and are flags as well: `--loss.gamma 1.5`.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{path}` | {default} | {meaning} |" for path, default, meaning in _keys(RunConfig, "")]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with its flags."""
    return make_app().generate_docs(output_format="markdown") + "\n"


def _keys(section: type[Any], prefix: str) -> list[tuple[str, str, str]]:
    meanings = _docstrings(section)
    keys = []
    for field in attrs.fields(section):
        kind: Any = field.type
        if isinstance(kind, type) and attrs.has(kind) and kind is not Selection:
            keys += _keys(kind, f"{prefix}{field.name}.")
        else:
            keys.append((f"{prefix}{field.name}", _default(field), meanings[field.name].replace("|", "\\|")))
    return keys


def _default(field: "attrs.Attribute[Any]") -> str:
    if field.default is attrs.NOTHING:
        return "required"
    value: Any = field.default.factory() if hasattr(field.default, "factory") else field.default
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, tuple):
        value = [item.name for item in value]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _docstrings(section: type[Any]) -> dict[str, str]:
    body = next(
        node.body
        for node in ast.parse(inspect.getsource(model)).body
        if isinstance(node, ast.ClassDef) and node.name == section.__name__
    )
    return {
        field.target.id: text.value.value
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


PAGES = {"config.md": config_page, "cli.md": cli_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
