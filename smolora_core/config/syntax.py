"""Read YAML and TOML into plain values, and say on which line each of them stands."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml

from smolora_core.errors import ConfigError, Problem

__all__ = ["Document", "parse_scalar", "read_document"]

_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types: `1e-4` is a number, `010` is ten, and `no` is a word."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(f"^({_INTEGER.pattern})$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^({_NUMBER.pattern})$"), list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


@attrs.frozen
class Document:
    """A config file as plain values.

    Attributes:
        values: nested dicts, lists and scalars.
        lines: `section.key` (list items as `key.0`) to `file:line`.
    """

    values: dict[str, Any]
    lines: dict[str, str]


def read_document(path: Path) -> Document:
    """Read a config file.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML or TOML, or holds a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"no file {str(path)!r}", hint=_neighbours(path)) from None
    except IsADirectoryError:
        raise ConfigError(f"{str(path)!r} is a folder", hint="give the config file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 (byte {error.start})", where=str(path), hint="save it as UTF-8") from None
    document = _read_toml(path, text) if path.suffix == ".toml" else _read_yaml(path, text)
    if not isinstance(document.values, dict):
        raise ConfigError("holds no keys", where=str(path), hint="write 'model: ...' and 'data: ...' at least")
    return document


def parse_scalar(text: str) -> Any:
    """Read the value of a flag by the rules of the file: `16`, `1e-4`, `true`, `[a, b]` or plain text."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
    except yaml.YAMLError:
        return text


def _read_yaml(path: Path, text: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        lines: dict[str, str] = {}
        problems: list[Problem] = []
        for key, node, twice in _walk(root, ""):
            lines.setdefault(key, f"{path}:{node.start_mark.line + 1}")
            if twice:
                problems.append(Problem(f"key {key!r} is there twice", where=lines[key], hint=f"the other is at {twice}"))
        values = {} if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"is not YAML ({error.problem})", where=where) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML ({error})", where=str(path)) from None
    finally:
        loader.dispose()
    if problems:
        raise ConfigError.of(problems)
    return Document(values, lines)


def _walk(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """Yield each key's path, the node where it stands, and the line of its first mention when it is there again."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            yield path, key, seen.get(key.value, 0)
            seen.setdefault(key.value, key.start_mark.line + 1)
            yield from _walk(value, f"{path}.")
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{prefix}{index}", item, 0
            yield from _walk(item, f"{prefix}{index}.")


def _read_toml(path: Path, text: str) -> Document:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not TOML ({error})", where=str(path)) from None
    return Document(values, dict(_toml_lines(path, text)))


def _toml_lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    # tomllib keeps no positions, so headers and keys are looked up once more; a key inside a multi-line value is harmless here.
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = f"{header[1]}."
            yield header[1], f"{path}:{number}"
        elif key := re.match(r"\s*([\w.\"-]+)\s*=", line):
            yield f"{table}{key[1]}".replace('"', ""), f"{path}:{number}"


def _neighbours(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    found = sorted(str(near) for pattern in ("*.yaml", "*.yml", "*.toml") for near in folder.glob(pattern))
    return f"here are: {', '.join(found[:5])}" if found else ""
