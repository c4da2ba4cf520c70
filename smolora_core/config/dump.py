"""Write a resolved config as YAML, with the source of each value as a comment."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import yaml

from smolora_core.config.load import Resolved
from smolora_core.config.secrets import Mask, mask_urls
from smolora_core.config.sections import Selection


class _Dumper(yaml.SafeDumper):
    """Quotes every string, so that none can be read as a number or a comment."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))

_ONE_LINE: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "sort_keys": False, "width": sys.maxsize}
_BY_NAME = Mask()


def dump(resolved: Resolved, mask: Mask = _BY_NAME) -> str:
    """Write a config as YAML that reads back to the same config, except that secrets are replaced by marks."""
    return "\n".join(_lines(resolved.config, "", resolved.sources, mask)) + "\n"


def canonical_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Write plain values as JSON text that is equal exactly if the values are, whatever the order of their keys.

    As in `json.dumps`, `default` converts values that JSON does not know; without it they raise a TypeError.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=default)


def plain(value: Any, mask: Mask = _BY_NAME, key: str = "") -> Any:
    """Turn a config, or the value of a key in one, into dicts, lists and scalars without secrets.

    A selection without options becomes its name. The mask applies to options; elsewhere only URLs can contain secrets.
    """
    if isinstance(value, Selection):
        return {"name": value.name, **mask.option(key, value.options)} if value.options else value.name
    if attrs.has(type(value)):
        return {name: plain(getattr(value, name), mask, f"{key}.{name}".lstrip(".")) for name in attrs.fields_dict(type(value))}
    if isinstance(value, Mapping):
        return mask.option(key, value)
    if isinstance(value, list | tuple):
        return [plain(inner, mask, f"{key}.{index}") for index, inner in enumerate(value)]
    return mask_urls(value) if isinstance(value, str) else value


def _lines(section: Any, prefix: str, sources: Mapping[str, str], mask: Mask) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for field in attrs.fields(type(section)):
        value, path = getattr(section, field.name), f"{prefix}{field.name}"
        if attrs.has(type(value)) and not isinstance(value, Selection):
            yield f"{indent}{field.name}:"
            yield from _lines(value, f"{path}.", sources, mask)
        else:
            # Dumped as a list, because YAML ends a document of one scalar with "...".
            text = yaml.dump([plain(value, mask, path)], Dumper=_Dumper, **_ONE_LINE)
            where = dict.fromkeys(source for known, source in sources.items() if f"{known}.".startswith(f"{path}."))
            yield f"{indent}{field.name}: {text.strip()[1:-1]}  # {', '.join(where) or 'default'}"
