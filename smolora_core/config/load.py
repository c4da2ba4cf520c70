"""Put a run's config together from defaults, a file and flags, and remember where every value came from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from smolora_core.config.convert import convert, nearest_source
from smolora_core.config.document import Document, parse_scalar, read_document
from smolora_core.config.secrets import left_out
from smolora_core.config.sections import RunConfig, Selection
from smolora_core.errors import ConfigError, Problem, did_you_mean

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
        sources: each given `section.key` to `file:line`, a flag, or `given from Python`; what is not in it is a default.
    """

    config: RunConfig
    sources: Mapping[str, str]

    def where(self, path: str) -> str:
        """Say where the user wrote a value, or else the section around it, or else the file: the place to look for an error."""
        return nearest_source(path, self.sources)


def load_config(file: Path | None, settings: Iterable[Setting] = ()) -> Resolved:
    """Read a config file and lay settings over it.

    Raises:
        ConfigError: everything that is wrong with it, together.
    """
    document = read_document(file) if file else Document({}, {})
    return resolve(document, settings)


def resolve(document: Document, settings: Iterable[Setting] = ()) -> Resolved:
    """Lay settings over a document and convert it.

    Raises:
        ConfigError: everything that is wrong with it, together.
    """
    values, sources = _copy(document.values), dict(document.lines)
    for section, key in _SHORTHANDS.items():
        if isinstance(values.get(section), str):
            values[section] = {key: values[section]}
    # Line numbers are kept for keys; what was given otherwise gets the source of what is around it.
    sources.update({path: nearest_source(path, sources) for path in _paths(values) if path not in sources})
    problems: list[Problem] = []
    for setting in settings:
        try:
            _put(values, setting, sources)
        except ConfigError as error:
            problems.extend(error.problems)
    try:
        config = convert(values, RunConfig, sources)
    except ConfigError as error:
        problems.extend(error.problems)
    for path, flag in left_out(values):
        what, where = f"{path} was left out when the file was written, because it is secret", nearest_source(path, sources)
        problems.append(Problem(what, where=where, hint=f"give it again with {flag} VALUE"))
    if problems:
        raise ConfigError.of(problems)
    return Resolved(config, sources)


def parse_flags(arguments: Sequence[str]) -> tuple[Path | None, list[Setting]]:
    """Part a command line into the config file and settings like `--lora.r 16` or `--lora.r=16`.

    Raises:
        ConfigError: a flag without a value, or a second file.
    """
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
            problems.append(Problem(f"unexpected {argument!r}", hint=f"the config file is {str(file)!r} already"))
    if problems:
        raise ConfigError.of(problems)
    return file, settings


def _put(values: dict[str, Any], setting: Setting, sources: dict[str, str]) -> None:
    """Lay one setting over values, making the sections around it where they are missing."""
    *outer, last = setting.path
    value = _copy(setting.value)
    if setting.path == ("model",) and isinstance(value, str):
        outer, last = ["model"], "path"
    if setting.path == ("loss",) and isinstance(value, str):
        value = {"name": value}
    parent: Any = values
    path = ""
    for key in outer:
        parent, path = _enter(parent, key, path, setting.source)
        sources.setdefault(path, setting.source)
    if isinstance(parent, list):
        hint = f"set the whole list, or an option: {setting.source}.OPTION"
        raise ConfigError(f"{path} is a list", where=setting.source, hint=hint)
    parent[last] = value
    path = f"{path}.{last}" if path else last
    for stale in [known for known in sources if known.startswith(f"{path}.")]:
        del sources[stale]
    sources.update(dict.fromkeys((path, *_paths(value, f"{path}.")), setting.source))


def _enter(parent: Any, key: str, path: str, source: str) -> tuple[Any, str]:
    """Go one key deeper: into a section, or by name into a list of components."""
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
        raise ConfigError(f"{path} has no keys of its own", where=source)
    return inner, path


def _copy(value: Any) -> Any:
    """Copy nested values, so that settings can be laid over them; what was given as records becomes dicts."""
    if isinstance(value, Selection):
        value = {"name": value.name, **value.options}
    elif attrs.has(type(value)):
        value = attrs.asdict(value, recurse=False)
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value


def _paths(value: Any, prefix: str = "") -> Iterator[str]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield f"{prefix}{key}"
        yield from _paths(inner, f"{prefix}{key}.")
