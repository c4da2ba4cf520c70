"""Combine defaults, a config file and flags into a run's config, and record the source of every value."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from smolora_core.config.conversion import convert, nearest_source
from smolora_core.config.document import Document, parse_scalar, read_document
from smolora_core.config.secrets import omitted_secrets
from smolora_core.config.sections import RunConfig, Selection
from smolora_core.errors import ConfigError, Problem, did_you_mean

_SHORTHANDS = {"model": "path", "loss": "name"}


@attrs.frozen
class Setting:
    """A value that overrides the file: the keys of its path, the value, and where it was given (`--lora.r`)."""

    path: tuple[str, ...]
    value: Any
    source: str


@attrs.frozen
class Resolved:
    """A config and the source of every value in it.

    Attributes:
        sources: the source of each `section.key` that is not a default: `file:line`, a flag, or `given from Python`.
    """

    config: RunConfig
    sources: Mapping[str, str]

    def where(self, path: str) -> str:
        """Return where the user wrote a value, or else the section around it, or else the file."""
        return nearest_source(path, self.sources)


def load_config(file: Path | None, settings: Iterable[Setting] = ()) -> Resolved:
    """Read a config file and apply settings to it; raise one ConfigError with every problem."""
    return resolve(read_document(file) if file else Document({}, {}), settings)


def resolve(document: Document, settings: Iterable[Setting] = ()) -> Resolved:
    """Apply settings to a document and convert it; raise one ConfigError with every problem."""
    values, sources = _copy(document.values), dict(document.lines)
    for section, key in _SHORTHANDS.items():
        if isinstance(values.get(section), str):
            values[section] = {key: values[section]}
    # Documents have lines only for what was written as a key; everything else gets the source of what surrounds it.
    sources.update({path: nearest_source(path, sources) for path in _paths(values) if path not in sources})
    problems: list[Problem] = []
    for setting in settings:
        try:
            _apply(setting, values, sources)
        except ConfigError as error:
            problems.extend(error.problems)
    try:
        config = convert(values, RunConfig, sources)
    except ConfigError as error:
        problems.extend(error.problems)
    for path, flag in omitted_secrets(values):
        what = f"{path} is a secret that was not saved with this config"
        problems.append(Problem(what, where=nearest_source(path, sources), hint=f"pass it again with {flag} VALUE"))
    if problems:
        raise ConfigError.of(problems)
    return Resolved(config, sources)


def parse_flags(arguments: Sequence[str]) -> tuple[Path | None, list[Setting]]:
    """Split a command line into the config file and settings such as `--lora.r 16` or `--lora.r=16`, or raise a ConfigError."""
    file: Path | None = None
    settings: list[Setting] = []
    problems: list[Problem] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--"):
            flag, has_value, text = argument.partition("=")
            if not has_value and (not rest or rest[0].startswith("--")):
                problems.append(Problem("has no value", where=flag, hint=f"write {flag} VALUE"))
                continue
            path = tuple(flag.removeprefix("--").replace("-", "_").split("."))
            settings.append(Setting(path, parse_scalar(text if has_value else rest.pop(0)), flag))
        elif file is None:
            file = Path(argument)
        else:
            problems.append(Problem(f"unexpected {argument!r}", hint=f"the config file is already {str(file)!r}"))
    if problems:
        raise ConfigError.of(problems)
    return file, settings


def _apply(setting: Setting, values: dict[str, Any], sources: dict[str, str]) -> None:
    """Set one value, and create the sections around it where they are missing."""
    *outer, last = setting.path
    value = _copy(setting.value)
    if setting.path == ("model",) and isinstance(value, str):
        outer, last = ["model"], "path"
    if setting.path == ("loss",) and isinstance(value, str):
        value = {"name": value}
    parent: Any = values
    path = ""
    for key in outer:
        parent, path = _descend(parent, key, path, setting.source)
        sources.setdefault(path, setting.source)
    if isinstance(parent, list):
        hint = f"set the whole list, or one option: {setting.source}.OPTION"
        raise ConfigError(f"{path} is a list", where=setting.source, hint=hint)
    # Flags are written with - or _, and a held-out set may have either in its name.
    last = next((key for key in parent if str(key).replace("-", "_") == last), last)
    parent[last] = value
    path = f"{path}.{last}" if path else last
    for stale in [known for known in sources if known.startswith(f"{path}.")]:
        del sources[stale]
    sources.update(dict.fromkeys((path, *_paths(value, f"{path}.")), setting.source))


def _descend(parent: Any, key: str, path: str, source: str) -> tuple[Any, str]:
    """Return the section at a key, or the component with that name in a list, and its path."""
    if isinstance(parent, list):
        wanted = key.replace("_", "-")
        names = [item.get("name") if isinstance(item, dict) else item for item in parent]
        if wanted not in names:
            hint = did_you_mean(wanted, (name for name in names if isinstance(name, str)))
            raise ConfigError(f"{path} has no item {wanted!r}", where=source, hint=hint)
        index = names.index(wanted)
        if isinstance(parent[index], str):
            parent[index] = {"name": wanted}
        return parent[index], f"{path}.{index}"
    path = f"{path}.{key}" if path else key
    inner = parent.get(key)
    if inner is None:
        inner = parent[key] = {}
    if not isinstance(inner, dict | list):
        raise ConfigError(f"{path} is not a section", where=source)
    return inner, path


def _copy(value: Any) -> Any:
    """Copy nested values to plain dicts and lists that settings can change."""
    if isinstance(value, Selection):
        value = {"name": value.name, **value.options}
    elif attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value


def _paths(value: Any, prefix: str = "") -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield f"{prefix}{key}"
        yield from _paths(inner, f"{prefix}{key}.")
