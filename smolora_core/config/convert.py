"""Turn plain values into config records, strictly: nothing is coerced, and every problem is found at once."""

import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import attrs

from smolora_core.config.schema import LISTS, MAPPINGS, UNIONS, fields_of, fits, nearest_choice, spell
from smolora_core.config.sections import Selection
from smolora_core.errors import ConfigError, Problem, SmoLoRAError, did_you_mean

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


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
        PluginError: the class has fields of types that a config cannot hold.
    """
    conversion = _Conversion(sources)
    try:
        return conversion.section(values, kind, prefix, label or prefix)
    except _Unfit:
        raise ConfigError.of(conversion.problems) from None


def nearest_source(path: str, sources: Mapping[str, str]) -> str:
    """Say where a value stands, or else the section around it."""
    while path and path not in sources:
        path = path.rpartition(".")[0]
    return sources.get(path, "")


class _Unfit(Exception):  # noqa: N818 -- control flow: the problem is recorded by then
    """A value that cannot be used."""


class _Conversion:
    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = sources
        self.problems: list[Problem] = []

    def section(self, value: Any, kind: type[Any], path: str, label: str) -> Any:
        fields = fields_of(kind)
        if isinstance(value, kind):
            value = {name: getattr(value, field.name) for name, field in fields.items()}
        elif value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.unfit(path, value, "keys with values")
        problems_before = len(self.problems)
        for key in value:
            if key not in fields:
                what = f"unknown key {key!r} in {label}" if label else f"unknown key {key!r}"
                self.report(_join(path, key), what, did_you_mean(str(key), fields))
        made = {}
        for name, field in fields.items():
            inner = _join(path, name)
            if name in value:
                with suppress(_Unfit):
                    made[name] = self.checked(value[name], field, inner)
            elif field.default is attrs.NOTHING:
                self.report(inner, f"key {inner!r} is missing")
        if len(self.problems) > problems_before:
            raise _Unfit
        try:
            return kind(**made)
        except (SmoLoRAError, ValueError, TypeError) as error:
            raise self.unusable(path, error) from error

    def checked(self, value: Any, field: "attrs.Attribute[Any]", path: str) -> Any:
        """Convert the value of a field and run its validator here, so that one value out of range does not hide another."""
        made = self.value(value, field.type, path)
        if field.validator is not None:
            try:
                field.validator(None, field, field.converter(made) if callable(field.converter) else made)
            except AttributeError:
                pass  # It looks at other fields too, and runs when the record is made.
            except (SmoLoRAError, ValueError, TypeError) as error:
                raise self.unusable(path, error, field.name) from error
        return made

    def value(self, value: Any, kind: Any, path: str) -> Any:
        origin = get_origin(kind) or kind
        if origin in UNIONS:
            return self.union(value, get_args(kind), path)
        if not fits(value, kind):
            raise self.unfit(path, value, spell(kind), nearest_choice(value, [kind]))
        if kind is Any or origin is Literal:
            return value
        if kind is Selection:
            return self.selection(value, path)
        if origin in LISTS:
            return self.items(value, kind, path)
        if origin in MAPPINGS:
            return self.mapping(value, kind, path)
        if attrs.has(kind):
            return self.section(value, kind, path, path)
        try:
            return kind(value)
        except OverflowError:
            raise self.unfit(path, value, spell(kind)) from None

    def union(self, value: Any, members: tuple[Any, ...], path: str) -> Any:
        if value is None and type(None) in members:
            return None
        members = tuple(member for member in members if member is not type(None))
        for member in members:
            if fits(value, member):
                return self.value(value, member, path)
        raise self.unfit(path, value, " or ".join(map(spell, members)), nearest_choice(value, members))

    def items(self, values: Sequence[Any], kind: Any, path: str) -> Any:
        origin, kinds = get_origin(kind) or kind, get_args(kind) or (Any,)
        if origin is tuple and Ellipsis not in kinds and get_args(kind):
            if len(values) != len(kinds):
                raise self.unfit(path, values, f"a list of {len(kinds)}")
        else:
            kinds = kinds[:1] * len(values)
        made = []
        for index, (value, item_kind) in enumerate(zip(values, kinds, strict=True)):
            with suppress(_Unfit):
                made.append(self.value(value, item_kind, f"{path}.{index}"))
        if len(made) < len(values):
            raise _Unfit
        return made if origin is list else tuple(made)

    def mapping(self, values: Mapping[Any, Any], kind: Any, path: str) -> dict[Any, Any]:
        _, value_kind = get_args(kind) or (str, Any)
        made = {}
        for key, value in values.items():
            inner = _join(path, key)
            if not isinstance(key, str):
                self.report(inner, f"the key {key!r} in {path} must be text")
                continue
            with suppress(_Unfit):
                made[key] = self.value(value, value_kind, inner)
        if len(made) < len(values):
            raise _Unfit
        return made

    def selection(self, value: Any, path: str) -> Selection:
        if isinstance(value, Selection):
            return value
        if isinstance(value, str):
            return Selection(name=value)
        if "name" not in value:
            self.report(path, f"{path} has no 'name' among its keys", "write {name: ...} and its options beside it")
            raise _Unfit
        name = self.value(value["name"], str, f"{path}.name")
        return Selection(name=name, options={key: option for key, option in value.items() if key != "name"})

    def unfit(self, path: str, value: Any, due: str, hint: str = "") -> _Unfit:
        self.report(path, f"{path} must be {due}, is {_describe(value)}".lstrip(), hint)
        return _Unfit()

    def unusable(self, path: str, error: Exception, name: str = "") -> _Unfit:
        # Validators of attrs begin with the field's name in quotes, ours without, and those of others with neither.
        text = str(error.args[0] if error.args else error).removeprefix(f"{name!r} ").removeprefix(f"{name} ")
        self.report(path, f"{path}{'' if name else ':'} {text}".lstrip(": "))
        return _Unfit()

    def report(self, path: str, what: str, hint: str = "") -> None:
        self.problems.append(Problem(what, where=nearest_source(path, self.sources), hint=hint))


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _describe(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "keys with values"
    if isinstance(value, int) and abs(value) > 10**100:
        return "a number of more than 100 digits"
    return f"the list {_SHORT.repr(list(value))}" if isinstance(value, list | tuple) else _SHORT.repr(value)
