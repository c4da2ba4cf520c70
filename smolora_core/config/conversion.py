"""Convert plain values to config records, strictly: nothing is coerced, and every problem is reported at once."""

import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

import attrs

from smolora_core.config.schema import LISTS, MAPPINGS, UNIONS, fields_of, fits, nearest_choice, type_name
from smolora_core.config.sections import Selection
from smolora_core.errors import ConfigError, Problem, SmoLoRAError, did_you_mean

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def convert(values: Any, kind: type[Any], sources: Mapping[str, str], prefix: str = "", label: str = "") -> Any:
    """Convert nested dicts, lists and scalars to a record.

    Args:
        values: the keys and values of the record.
        kind: the attrs class to make.
        sources: the place where each `section.key` was written.
        prefix: the path of `values` in the config.
        label: the record's name in errors about unknown keys; its path by default.

    Raises:
        ConfigError: one problem for each unusable value.
        PluginError: the class has a field whose type a config cannot contain.
    """
    conversion = _Conversion(sources)
    try:
        return conversion.section(values, kind, prefix, label or prefix)
    except _Invalid:
        raise ConfigError.of(conversion.problems) from None


def nearest_source(path: str, sources: Mapping[str, str]) -> str:
    """Return where a value was written, or else the section around it."""
    while path and path not in sources:
        path = path.rpartition(".")[0]
    return sources.get(path, "")


class _Invalid(Exception):  # noqa: N818 -- control flow: the problem has been recorded
    """An unusable value."""


@attrs.frozen
class _Conversion:
    sources: Mapping[str, str]
    problems: list[Problem] = attrs.field(factory=list)

    def section(self, value: Any, kind: type[Any], path: str, label: str) -> Any:
        fields = fields_of(kind)
        if isinstance(value, kind):
            value = {name: getattr(value, field.name) for name, field in fields.items()}
        elif value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.mismatch(path, value, "a mapping")
        problems_before = len(self.problems)
        for key in value:
            if key not in fields:
                what = f"unknown key {key!r} in {label}" if label else f"unknown key {key!r}"
                self.report(_join(path, key), what, did_you_mean(str(key), fields))
        made = {}
        for name, field in fields.items():
            inner = _join(path, name)
            if name in value:
                with suppress(_Invalid):
                    made[name] = self.field(value[name], field, inner)
            elif field.default is attrs.NOTHING:
                self.report(inner, f"key {inner!r} is missing")
        if len(self.problems) > problems_before:
            raise _Invalid
        try:
            return kind(**made)
        except (SmoLoRAError, ValueError, TypeError) as error:
            raise self.rejected(path, error) from error

    def field(self, value: Any, field: "attrs.Attribute[Any]", path: str) -> Any:
        """Convert a field's value and validate it here, so that one value out of range does not hide another."""
        made = self.value(value, field.type, path)
        if field.validator is not None:
            try:
                field.validator(None, field, field.converter(made) if callable(field.converter) else made)
            except AttributeError:
                pass  # This validator reads other fields; it runs when the record is made.
            except (SmoLoRAError, ValueError, TypeError) as error:
                raise self.rejected(path, error, field.name) from error
        return made

    def value(self, value: Any, kind: Any, path: str) -> Any:
        origin = get_origin(kind) or kind
        if origin in UNIONS:
            return self.union(value, get_args(kind), path)
        if not fits(value, kind):
            raise self.mismatch(path, value, type_name(kind), nearest_choice(value, [kind]))
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
            raise self.mismatch(path, value, type_name(kind)) from None

    def union(self, value: Any, members: tuple[Any, ...], path: str) -> Any:
        if value is None and type(None) in members:
            return None
        members = tuple(member for member in members if member is not type(None))
        for member in members:
            if fits(value, member):
                return self.value(value, member, path)
        raise self.mismatch(path, value, " or ".join(map(type_name, members)), nearest_choice(value, members))

    def items(self, values: Sequence[Any], kind: Any, path: str) -> Any:
        origin, kinds = get_origin(kind) or kind, get_args(kind) or (Any,)
        if origin is not tuple or Ellipsis in kinds or not get_args(kind):
            kinds = kinds[:1] * len(values)
        if len(values) != len(kinds):
            raise self.mismatch(path, values, f"a list of {len(kinds)}")
        made = []
        for index, (value, item_kind) in enumerate(zip(values, kinds, strict=True)):
            with suppress(_Invalid):
                made.append(self.value(value, item_kind, f"{path}.{index}"))
        if len(made) < len(values):
            raise _Invalid
        return made if origin is list else tuple(made)

    def mapping(self, values: Mapping[Any, Any], kind: Any, path: str) -> dict[Any, Any]:
        _, value_kind = get_args(kind) or (str, Any)
        made = {}
        for key, value in values.items():
            inner = _join(path, key)
            if isinstance(key, str):
                with suppress(_Invalid):
                    made[key] = self.value(value, value_kind, inner)
            else:
                self.report(inner, f"key {key!r} in {path} must be a string")
        if len(made) < len(values):
            raise _Invalid
        return made

    def selection(self, value: Any, path: str) -> Selection:
        if isinstance(value, Selection):
            return value
        if isinstance(value, str):
            return Selection(name=value)
        if "name" not in value:
            self.report(path, f"{path} has no key 'name'", "write {name: ...}, with its options in the same mapping")
            raise _Invalid
        name = self.value(value["name"], str, f"{path}.name")
        return Selection(name=name, options={key: option for key, option in value.items() if key != "name"})

    def mismatch(self, path: str, value: Any, expected: str, hint: str = "") -> _Invalid:
        self.report(path, f"{path} must be {expected}, got {_describe(value)}".lstrip(), hint)
        return _Invalid()

    def rejected(self, path: str, error: Exception, name: str = "") -> _Invalid:
        # Messages of attrs' validators begin with the field's name in quotes, ours without quotes, others with neither.
        text = str(error.args[0] if error.args else error).removeprefix(f"{name!r} ").removeprefix(f"{name} ")
        self.report(path, f"{path}{'' if name else ':'} {text}".lstrip(": "))
        return _Invalid()

    def report(self, path: str, what: str, hint: str = "") -> None:
        self.problems.append(Problem(what, where=nearest_source(path, self.sources), hint=hint))


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, int) and abs(value) > 10**100:
        return "a number of more than 100 digits"
    return _SHORT.repr(list(value) if isinstance(value, list | tuple) else value)
