"""What the types of attrs fields allow in a config.

Only what sections are made of is understood: text, numbers, truth values, paths, `Literal`, lists and tuples, mappings, unions
of these, `Selection`, and sections in sections.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from smolora_core.config.sections import Selection
from smolora_core.errors import PluginError, nearest

_SCALARS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "text"}
LISTS = (tuple, list, Sequence)
MAPPINGS = (dict, Mapping)
UNIONS = (Union, types.UnionType)


def fields_of(kind: type[Any]) -> "dict[str, attrs.Attribute[Any]]":
    """List what a section may hold, by key.

    Raises:
        PluginError: the class has types that cannot be resolved, or that a config cannot hold.
    """
    owner = f"{kind.__module__}.{kind.__qualname__}"
    try:
        attrs.resolve_types(kind, include_extras=False)
    except Exception as error:
        hint = "import what they name at the top of the module, not under TYPE_CHECKING"
        raise PluginError(f"the types of {owner} cannot be resolved ({error})", hint=hint) from error
    fields = [field for field in attrs.fields(kind) if field.init]
    for field in fields:
        if not _is_understood(field.type):
            hint = "use text, numbers, true or false, Path, Literal, lists, tuples, mappings or attrs classes"
            raise PluginError(f"{owner}.{field.name} has type {field.type}, which a config cannot hold", hint=hint)
    return {str(field.alias): field for field in fields}


def fits(value: Any, kind: Any) -> bool:
    """Whether a value has the outer shape of a type, with no coercion but a whole number for a number."""
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


def spell(kind: Any) -> str:
    """Say what a type wants: `a whole number`."""
    origin = get_origin(kind) or kind
    if origin in LISTS:
        return "a list"
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return "a name" if kind is Selection else _SCALARS.get(kind, "keys with values")


def nearest_choice(value: Any, kinds: Iterable[Any]) -> str:
    """Suggest the nearest choice of the `Literal`s among some types."""
    choices = (str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind))
    return nearest(value, choices) if isinstance(value, str) else ""


def _is_understood(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin in (*UNIONS, *LISTS, *MAPPINGS):
        return all(member is Ellipsis or _is_understood(member) for member in get_args(kind))
    return kind is Any or origin in (Literal, type(None), Selection, *_SCALARS) or attrs.has(kind)
