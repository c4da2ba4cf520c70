"""Write the references that are made from the code: `python docs/generate.py`. A test fails when they are out of date."""

import ast
import importlib
import inspect
import types
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

import smolora_core
from smolora_core.cli import make_app
from smolora_core.config import RunConfig, Selection
from smolora_core.config import sections as model

HERE = Path(__file__).parent / "reference"
_PLAIN = {bool: "`true`, `false`", int: "integer", float: "number", str: "string", Selection: "name"}


def config_page() -> str:
    """Every config key with its values, default and meaning."""
    lines = [
        "# Config",
        "",
        "YAML or TOML. Every key is also a flag: `--lora.r 16`. A component is a name, or a name with its options,",
        "`loss: {name: focal, gamma: 1.5}`; the options are flags too: `--loss.gamma 1.5`.",
        "",
        "Keys without a default are optional, unless they are marked as required.",
        "",
        "| key | values | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{path}` | {values} | {default} | {meaning} |" for path, values, default, meaning in _keys(RunConfig, "")]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Every command with its flags."""
    return make_app().generate_docs(output_format="markdown") + "\n"


def authors_page() -> str:
    """The public names of every room that has some, beside those of `smolora_core` itself."""
    lines = [
        "# Names for plugin authors",
        "",
        "The built-in plugins are written with these names and those of the [library](library.md), and yours can be too.",
        "Other names in `smolora_core` may change without notice.",
    ]
    described = (HERE / "library.md").read_text(encoding="utf-8")
    for stub in sorted(Path(smolora_core.__file__).parent.glob("*/__init__.pyi")):
        room = f"smolora_core.{stub.parent.name}"
        names = [name for name in _public_names(stub) if f":: {room}.{name}\n" not in described]
        lines += ["", f"## {room}", "", "```{eval-rst}", f".. automodule:: {room}"]
        lines += [line for name in names for line in ("", *_directive(room, name))]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def _keys(section: type[Any], prefix: str) -> list[tuple[str, str, str, str]]:
    meanings = _docstrings(section)
    keys = []
    for field in attrs.fields(section):
        kind: Any = field.type
        if isinstance(kind, type) and attrs.has(kind) and kind is not Selection:
            keys += _keys(kind, f"{prefix}{field.name}.")
        else:
            meaning = meanings[field.name].replace("|", "\\|")
            keys.append((f"{prefix}{field.name}", ", ".join(_values(kind)), _default(field), meaning))
    return keys


def _values(kind: Any) -> Iterator[str]:
    """Name what a key may hold: each choice of a `Literal`, or a kind of value."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        yield from (f"`{str(choice).lower() if isinstance(choice, bool) else choice}`" for choice in arguments)
    elif origin is tuple:
        yield f"list of {_PLAIN[arguments[0]]}s"
    elif origin is Mapping:
        yield "mapping" if arguments[1] is Any else f"mapping to {_PLAIN[arguments[1]]}s"
    elif isinstance(kind, types.UnionType) or arguments:
        yield from (each for argument in arguments if argument is not type(None) for each in _values(argument))
    else:
        yield _PLAIN[kind]


def _default(field: "attrs.Attribute[Any]") -> str:
    if field.default is attrs.NOTHING:
        return "required"
    value: Any = field.default.factory() if hasattr(field.default, "factory") else field.default
    if value is None or value == () or value == {}:
        return ""
    if isinstance(value, tuple):
        value = f"[{', '.join(item.name for item in value)}]"
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


def _public_names(stub: Path) -> list[str]:
    imports = (node for node in ast.parse(stub.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom))
    return sorted((alias.asname or alias.name for node in imports for alias in node.names), key=str.lower)


def _directive(room: str, name: str) -> list[str]:
    item = getattr(importlib.import_module(room), name)
    if inspect.isclass(item):
        return [f".. autoclass:: {room}.{name}", "   :members:"]
    if inspect.isroutine(item):
        return [f".. autofunction:: {room}.{name}"]
    return [f".. py:data:: {room}.{name}", *([f"   :value: {item!r}"] if isinstance(item, int | str) else [])]


PAGES = {"config.md": config_page, "cli.md": cli_page, "authors.md": authors_page}

if __name__ == "__main__":
    for name, text in {name: page() for name, page in PAGES.items()}.items():
        (HERE / name).write_text(text, encoding="utf-8")
