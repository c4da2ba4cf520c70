"""Write a resolved config back as YAML, each value with its source as a comment."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import yaml

from smolora_core.config.load import Resolved
from smolora_core.config.secrets import Mask, addresses
from smolora_core.config.sections import Selection


class _Dumper(yaml.SafeDumper):
    """Quotes all text, so that none of it can be taken for a number or a comment."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


_ONE_LINE: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "sort_keys": False, "width": sys.maxsize}


_BY_NAME = Mask()


def dump(resolved: Resolved, mask: Mask = _BY_NAME) -> str:
    """Spell a config so that reading it again gives the same config, but for secrets: a mark stands for each."""
    return "\n".join(_lines(resolved.config, "", resolved.sources, mask)) + "\n"


def canonical_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Spell plain values so that equal ones, and no others, give equal text, whatever the order of their keys.

    Args:
        value: what to spell.
        default: spells values that JSON does not know, as for `json.dumps`.

    Raises:
        TypeError: there is such a value, and no default.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=default)


def plain(value: Any, mask: Mask = _BY_NAME, key: str = "") -> Any:
    """Turn sections and selections into dicts, lists and scalars that may be written; a bare selection becomes its name.

    Args:
        value: a config, or what stands in it.
        mask: knows the secrets; in what has a place of its own in the config, only addresses hold any.
        key: where the value stands.
    """
    if isinstance(value, Selection):
        return {"name": value.name, **mask.option(key, value.options)} if value.options else value.name
    if attrs.has(type(value)):
        return {name: plain(getattr(value, name), mask, f"{key}.{name}".lstrip(".")) for name in attrs.fields_dict(type(value))}
    if isinstance(value, Mapping):
        return mask.option(key, value)
    if isinstance(value, list | tuple):
        return [plain(inner, mask, f"{key}.{index}") for index, inner in enumerate(value)]
    return addresses(value) if isinstance(value, str) else value


def _lines(section: Any, prefix: str, sources: Mapping[str, str], mask: Mask) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for field in attrs.fields(type(section)):
        value, path = getattr(section, field.name), f"{prefix}{field.name}"
        if attrs.has(type(value)) and not isinstance(value, Selection):
            yield f"{indent}{field.name}:"
            yield from _lines(value, f"{path}.", sources, mask)
        else:
            # In a list, because a document of one scalar is written with an end mark.
            text = yaml.dump([plain(value, mask, path)], Dumper=_Dumper, **_ONE_LINE)
            where = dict.fromkeys(source for known, source in sources.items() if f"{known}.".startswith(f"{path}."))
            yield f"{indent}{field.name}: {text.strip()[1:-1]}  # {', '.join(where) or 'default'}"
