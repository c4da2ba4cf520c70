"""Read YAML and TOML into plain values, and record the line of each value."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError

from smolora_core.errors import ConfigError, Problem, nearest

# A few lines of nested aliases can expand to billions of values.
_MAX_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The core types of YAML 1.2 only: `1e-4` is a number, `010` is ten, `no` is a string, and so is a date."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    yaml_constructors = {
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (*(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map")), None)
    }


def _add_type(name: str, pattern: str, first: Iterable[str], construct: Callable[[yaml.SafeLoader, Any], Any]) -> None:
    def construct_strictly(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, KeyError):
            raise ConstructorError(None, None, f"cannot parse {node.value[:40]!r}", node.start_mark) from None

    tag = f"tag:yaml.org,2002:{name}"
    _Loader.add_implicit_resolver(tag, re.compile(f"({pattern})$"), list(first))
    _Loader.add_constructor(tag, construct_strictly)


_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
_add_type("null", "~|null|Null|NULL|", ("~", "n", "N", ""), yaml.SafeLoader.construct_yaml_null)
_add_type("bool", "true|True|TRUE|false|False|FALSE", "tTfF", yaml.SafeLoader.construct_yaml_bool)
_add_type("int", "[-+]?[0-9]+", "-+0123456789", lambda loader, node: int(loader.construct_scalar(node)))
_add_type("float", rf"{_NUMBER}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789", yaml.SafeLoader.construct_yaml_float)


@attrs.frozen
class Document:
    """A config file as plain values.

    Attributes:
        lines: the `file:line` of each `section.key` (list items as `key.0`), and the file for `""`.
    """

    values: dict[str, Any]
    lines: dict[str, str]


def read_document(path: Path) -> Document:
    """Read a config file; raise a ConfigError if it is missing, not UTF-8, not valid YAML or TOML, or has duplicate keys."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"no file {str(path)!r}", hint=_suggest_file(path)) from None
    except IsADirectoryError:
        raise ConfigError(f"{str(path)!r} is a folder", hint="pass the config file inside it") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"file {str(path)!r} cannot be read ({error})") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8", where=f"{path}:{line}", hint="save it as UTF-8") from None
    read = _read_toml if path.suffix == ".toml" else _read_yaml
    try:
        document = read(path, text)
    except RecursionError:
        raise ConfigError("is nested too deeply", where=str(path)) from None
    if not isinstance(document.values, dict):
        raise ConfigError("contains no keys", where=str(path), hint="it needs at least 'model: ...' and 'data: ...'")
    return document


def parse_scalar(text: str) -> Any:
    """Parse a flag's value like one in a file: `16`, `1e-4`, `true`, `[a, b]`, `"16"` for a string, or plain text."""
    try:
        if text.startswith(("[", "{", "'", '"')):
            return yaml.load(text, _Loader)  # noqa: S506 -- a SafeLoader
        loader = _Loader("")
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except (yaml.YAMLError, RecursionError):
        return text


def _read_yaml(path: Path, text: str) -> Document:
    lines = {"": str(path)}
    problems: list[Problem] = []
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        for count, (key, node, first_line) in enumerate(_walk(root, "")):
            if count > _MAX_VALUES:
                raise ConfigError(f"contains more than {_MAX_VALUES} values", where=str(path))
            where = f"{path}:{node.start_mark.line + 1}"
            lines.setdefault(key, where)
            if first_line:
                problems.append(Problem(f"duplicate key {key!r}", where=where, hint=f"it is already set on line {first_line}"))
        values = loader.construct_document(root) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        what = ", ".join(filter(None, (error.context, error.problem)))
        hint = "indent with spaces" if "'\\t'" in what else ""
        raise ConfigError(f"is not valid YAML ({what})", where=where, hint=hint) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"is not valid YAML ({error.reason})", where=f"{path}:{line}") from None
    if problems:
        raise ConfigError.of(problems)
    return Document({} if values is None else values, lines)


def _walk(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """Yield each key's path and node, and for a duplicate key the line of the first one, else 0."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield f"{prefix}{key.value}", key, seen.get(key.value, 0)
                seen.setdefault(key.value, key.start_mark.line + 1)
                yield from _walk(value, f"{prefix}{key.value}.")
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{prefix}{index}", item, 0
            yield from _walk(item, f"{prefix}{index}.")


def _read_toml(path: Path, text: str) -> Document:
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        what, _, end = str(error).partition(" (at ")
        mark = re.fullmatch(r"line (\d+), column (\d+)\)", end)
        place = f"{mark[1]}:{mark[2]}" if mark else text.count("\n") + 1
        raise ConfigError(f"is not valid TOML ({what})", where=f"{path}:{place}") from None
    return Document(values, {"": str(path), **dict(_toml_lines(path, text))})


def _toml_lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    # tomllib keeps no positions, so find headers and keys again; a line that only looks like one does no harm.
    table = ""
    items: Counter[str] = Counter()
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        if header := re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line):
            name = header[2].replace('"', "").replace(" ", "")
            if header[1] == "[[":
                yield name, where
                items[name] += 1
                name = f"{name}.{items[name] - 1}"
            yield name, where
            table = f"{name}."
        elif key := re.match(r"\s*([\w.\"-]+)\s*=", line):
            yield f"{table}{key[1]}".replace('"', ""), where


def _suggest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"folder {str(path.parent)!r} does not exist"
    found = sorted(near.name for pattern in ("*.yaml", "*.yml", "*.toml") for near in path.parent.glob(pattern))
    return nearest(path.name, found) or (f"found here: {', '.join(found[:5])}" if found else "")
