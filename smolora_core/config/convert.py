"""Turn plain values into config records, strictly: nothing is coerced, and every problem is found at once.

The types of the attrs fields are the schema. Only what config sections are made of is understood: text, numbers, truth values, `Literal`,
`tuple[X, ...]`, mappings, unions of these, `Selection`, and sections in sections.
"""

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from smolora_core.config.model import ModelConfig, Selection
from smolora_core.errors import ConfigError, Problem, SmoLoRAError, did_you_mean

__all__ = ["convert"]

_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Selection: "a name"}


def convert(values: Any, kind: type[Any], sources: Mapping[str, str], prefix: str = "", label: str = "") -> Any:
    """Make a record of plain values.

    Args:
        values: nested dicts, lists and scalars.
        kind: the attrs class to make.
        sources: where each `section.key` was written.
        prefix: the path of `values` itself.
        label: what to call the outermost record when a key in it is unknown; its path if empty.

    Raises:
        ConfigError: with one problem for each value that cannot be used.
    """
    conversion = _Conversion(sources)
    try:
        return conversion.section(values, kind, prefix, label or prefix)
    except _Unfit:
        raise ConfigError.of(conversion.problems) from None


class _Unfit(Exception):
    """A value that has been reported already."""


class _Conversion:
    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources
        self.problems: list[Problem] = []

    def section(self, value: Any, kind: type[Any], path: str, label: str) -> Any:
        if isinstance(value, kind):
            value = attrs.asdict(value, recurse=False)
        if isinstance(value, str) and kind is ModelConfig:
            value = {"path": value}
        if not isinstance(value, Mapping):
            raise self._unfit(path, value, "keys with values")
        fields = {field.alias: field for field in attrs.fields(attrs.resolve_types(kind))}
        for key in value.keys() - fields.keys():
            self._report(
                _join(path, key), f"unknown key {key!r}" + (f" in {label}" if label else ""), did_you_mean(str(key), fields)
            )
        made = {}
        sound = value.keys() <= fields.keys()
        for name, field in fields.items():
            inner = _join(path, name)
            if name in value:
                try:
                    made[name] = self.value(value[name], field.type, inner)
                except _Unfit:
                    sound = False
            elif field.default is attrs.NOTHING:
                self._report(inner, f"key {inner!r} is missing")
                sound = False
        return self._construct(kind, made, path, sound)

    def value(self, value: Any, kind: Any, path: str) -> Any:
        origin = get_origin(kind)
        if origin in (Union, types.UnionType):
            return self._union(value, get_args(kind), path)
        if origin is Literal:
            return self._literal(value, get_args(kind), path)
        if not _fits(value, kind):
            raise self._unfit(path, value, _spell(kind))
        if origin is tuple:
            return tuple(self._items(value, get_args(kind)[0], path))
        if kind is Selection:
            return self._selection(value, path)
        if attrs.has(kind):
            return self.section(value, kind, path, path)
        return dict(value) if origin is not None else value if kind is Any else kind(value)

    def _union(self, value: Any, members: tuple[Any, ...], path: str) -> Any:
        if value is None and type(None) in members:
            return None
        for member in members:
            if _fits(value, member):
                return self.value(value, member, path)
        raise self._unfit(path, value, " or ".join(_spell(member) for member in members if member is not type(None)))

    def _literal(self, value: Any, choices: tuple[Any, ...], path: str) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        near = did_you_mean(value, map(str, choices)) if isinstance(value, str) else ""
        raise self._unfit(path, value, "one of " + ", ".join(map(str, choices)), near if near.startswith("did") else "")

    def _items(self, values: Any, kind: Any, path: str) -> list[Any]:
        made, sound = [], True
        for index, item in enumerate(values):
            try:
                made.append(self.value(item, kind, f"{path}.{index}"))
            except _Unfit:
                sound = False
        if not sound:
            raise _Unfit
        return made

    def _selection(self, value: Any, path: str) -> Selection:
        if isinstance(value, Selection):
            return value
        if isinstance(value, str):
            return Selection(name=value)
        if not isinstance(value.get("name"), str):
            raise self._unfit(path, value, "a name, or keys with 'name' among them")
        return Selection(name=value["name"], options={key: option for key, option in value.items() if key != "name"})

    def _construct(self, kind: type[Any], made: dict[str, Any], path: str, sound: bool) -> Any:
        # The validators run one by one first, so that one value out of range does not hide another.
        for field in attrs.fields(kind):
            if field.validator is None or field.alias not in made:
                continue
            value = made[field.alias]
            try:
                field.validator(None, field, field.converter(value) if callable(field.converter) else value)
            except (SmoLoRAError, ValueError, TypeError) as error:
                name = _join(path, field.alias)
                self._report(name, f"{name} {str(error).removeprefix(f'{field.alias} ')}")
                sound = False
        if not sound:
            raise _Unfit
        return kind(**made)

    def _unfit(self, path: str, value: Any, due: str, hint: str = "") -> _Unfit:
        self._report(path, f"{path} must be {due}, is {_describe(value)}", hint)
        return _Unfit()

    def _report(self, path: str, what: str, hint: str = "") -> None:
        self.problems.append(Problem(what, where=self._nearest(path), hint=hint))

    def _nearest(self, path: str) -> str:
        while path and path not in self.sources:
            path = path.rpartition(".")[0]
        return self.sources.get(path, "")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the outer shape of a type, with no coercion but a whole number for a number."""
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(kind))
    if origin is tuple:
        return isinstance(value, list | tuple)
    if origin is not None:
        return isinstance(value, Mapping)
    if kind is Selection:
        return isinstance(value, Selection | str | Mapping)
    if attrs.has(kind):
        return isinstance(value, Mapping | kind) or (kind is ModelConfig and isinstance(value, str))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def _spell(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a list"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    return _WORDS.get(kind, "keys with values")


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "keys with values"
    return f"the list {list(value)!r}" if isinstance(value, list | tuple) else repr(value)
