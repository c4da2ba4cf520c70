"""The types that fields of config sections and options may have.

These are text, numbers, booleans, paths, `Literal`, lists and tuples, mappings, unions of these, `Selection`, and nested
attrs classes.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from smolora_core.config.sections import Selection
from smolora_core.errors import PluginError, nearest

_SCALARS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Path: "a path"}
LISTS = (tuple, list, Sequence)
MAPPINGS = (dict, Mapping)
UNIONS = (Union, types.UnionType)


def fields_of(kind: type[Any]) -> "dict[str, attrs.Attribute[Any]]":
    """List the fields of an attrs class by key; raise a PluginError for a type that a config cannot contain."""
    owner = f"{kind.__module__}.{kind.__qualname__}"
    try:
        attrs.resolve_types(kind, include_extras=False)
    except Exception as error:
        hint = "import the names at module level, not under TYPE_CHECKING"
        raise PluginError(f"the annotations of {owner} cannot be resolved ({error})", hint=hint) from error
    fields = [field for field in attrs.fields(kind) if field.init]
    for field in fields:
        if not _is_supported(field.type):
            hint = "use str, int, float, bool, Path, Literal, list, tuple, Mapping or attrs classes"
            raise PluginError(f"{owner}.{field.name} has type {field.type}, which a config cannot contain", hint=hint)
    return {str(field.alias): field for field in fields}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has the outer shape of a type; the only coercion is from an integer to a float."""
    origin = get_origin(kind) or kind
    if kind is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(kind))
    if origin in LISTS:
        return isinstance(value, list | tuple)
    if origin in MAPPINGS:
        return isinstance(value, Mapping)
    if kind is Selection:
        return isinstance(value, Selection | str | Mapping)
    if attrs.has(kind):
        return value is None or isinstance(value, Mapping | kind)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) or (kind is float and isinstance(value, int)) or (kind is Path and isinstance(value, str))


def type_name(kind: Any) -> str:
    """Name a type as errors do: `an integer`."""
    origin = get_origin(kind) or kind
    if origin in LISTS:
        return "a list"
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return "a name" if kind is Selection else _SCALARS.get(kind, "a mapping")


def nearest_choice(value: Any, kinds: Iterable[Any]) -> str:
    """Suggest the nearest choice of the `Literal` types among `kinds`."""
    choices = (str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind))
    return nearest(value, choices) if isinstance(value, str) else ""


def _is_supported(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin in (*UNIONS, *LISTS, *MAPPINGS):
        return all(member is Ellipsis or _is_supported(member) for member in get_args(kind))
    return kind is Any or origin in (Literal, type(None), Selection, *_SCALARS) or attrs.has(kind)
