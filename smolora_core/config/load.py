"""Put a run's config together from defaults, a file and flags, and remember where every value came from."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from smolora_core.config.convert import convert
from smolora_core.config.model import RunConfig
from smolora_core.config.syntax import Document, parse_scalar, read_document
from smolora_core.errors import ConfigError, Problem

__all__ = ["Resolved", "Setting", "flatten", "load_config", "parse_flags", "resolve"]

_SHORTHANDS = {"model": "path", "loss": "name"}


@attrs.frozen
class Setting:
    """One value that overrides the file: its path as keys, and where it was given (`--lora.r`)."""

    path: tuple[str, ...]
    value: Any
    source: str


@attrs.frozen
class Resolved:
    """A config and the source of every value in it.

    Attributes:
        config: the values.
        sources: `section.key` to `file:line`, a flag, or `given from Python`; what is not in it is a default.
    """

    config: RunConfig
    sources: Mapping[str, str]

    def where(self, path: str) -> str:
        """Say where the user wrote a value or the section around it; empty for a default."""
        while path and path not in self.sources:
            path = path.rpartition(".")[0]
        return self.sources.get(path, "")


def load_config(file: Path | None, settings: Iterable[Setting] = ()) -> Resolved:
    """Read a config file and lay settings over it.

    Raises:
        ConfigError: everything that is wrong with it, together.
    """
    document = read_document(file) if file else Document({}, {})
    return resolve(document, settings)


def resolve(document: Document, settings: Iterable[Setting] = ()) -> Resolved:
    """Lay settings over a document and convert it."""
    values, sources = _expand(document.values), dict(document.lines)
    for setting in settings:
        _put(values, setting, sources)
    return Resolved(convert(values, RunConfig, sources), sources)


def parse_flags(arguments: Sequence[str]) -> tuple[Path | None, list[Setting]]:
    """Part a command line into the config file and settings like `--lora.r 16` or `--lora.r=16`.

    Raises:
        ConfigError: a flag without a value, or a second file.
    """
    file: Path | None = None
    settings: list[Setting] = []
    problems: list[Problem] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--"):
            flag, has_value, text = argument.partition("=")
            value = text if has_value else next(rest, None)
            if value is None:
                problems.append(Problem("has no value", where=flag))
            else:
                path = tuple(flag.removeprefix("--").replace("-", "_").split("."))
                settings.append(Setting(path, parse_scalar(value), flag))
        elif file is None:
            file = Path(argument)
        else:
            problems.append(Problem(f"unexpected {argument!r}", hint=f"the config file is {str(file)!r} already"))
    if problems:
        raise ConfigError.of(problems)
    return file, settings


def _expand(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy nested values, writing shorthands out, so that flags can be laid over any of them."""
    expanded = {key: _copy(value) for key, value in values.items()}
    for section, key in _SHORTHANDS.items():
        if isinstance(expanded.get(section), str):
            expanded[section] = {key: expanded[section]}
    return expanded


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _put(values: dict[str, Any], setting: Setting, sources: dict[str, str]) -> None:
    path = setting.path
    if path == ("model",) and isinstance(setting.value, str):
        path = ("model", "path")
    parent: Any = values
    for depth, key in enumerate(path[:-1]):
        parent = _step(parent, key)
        if parent is None:
            name = ".".join(path[: depth + 1])
            raise ConfigError(f"{name} has no keys of its own", where=setting.source)
    name = ".".join(path)
    for stale in [known for known in sources if known.startswith(f"{name}.")]:
        del sources[stale]
    sources[name] = setting.source
    if not isinstance(parent, dict):
        raise ConfigError(
            f"{name} is an item of a list", where=setting.source, hint="set one of its options, or the whole list"
        )
    parent[path[-1]] = {"name": setting.value} if name == "loss" and isinstance(setting.value, str) else setting.value


def _step(parent: Any, key: str) -> Any:
    """Go one key deeper, making the section where it is missing; a list of components is entered by component name."""
    if isinstance(parent, list):
        for index, item in enumerate(parent):
            if key.replace("_", "-") in (item, item.get("name") if isinstance(item, dict) else None):
                parent[index] = {"name": item} if isinstance(item, str) else item
                return parent[index]
        return None
    return parent.setdefault(key, {}) if isinstance(parent, dict) else None


def flatten(record: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield each value of nested sections with its path."""
    for field in attrs.fields(type(record)):
        value = getattr(record, field.name)
        path = f"{prefix}{field.name}"
        if attrs.has(type(value)):
            yield from flatten(value, f"{path}.")
        else:
            yield path, value
