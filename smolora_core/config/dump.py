"""Write a resolved config back as YAML, each value with its source as a comment."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import yaml

from smolora_core.config.load import Resolved
from smolora_core.config.model import Selection
from smolora_core.config.secrets import REDACTED, is_secret

__all__ = ["dump", "plain"]


class _Dumper(yaml.SafeDumper):
    """Quotes all text, so that none of it can be taken for a number or a comment."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


_ONE_LINE: dict[str, Any] = {"default_flow_style": True, "allow_unicode": True, "sort_keys": False, "width": sys.maxsize}


def dump(resolved: Resolved) -> str:
    """Spell a config so that reading it again gives the same config."""
    return "\n".join(_lines(resolved.config, "", resolved.sources)) + "\n"


def plain(value: Any) -> Any:
    """Turn sections and selections into dicts, lists and scalars; a bare selection becomes its name, a secret a word."""
    if isinstance(value, Selection):
        return {"name": value.name, **plain(value.options)} if value.options else value.name
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {key: REDACTED if is_secret(str(key)) and inner is not None else plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _lines(section: Any, prefix: str, sources: Mapping[str, str]) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for field in attrs.fields(type(section)):
        value, path = getattr(section, field.name), f"{prefix}{field.name}"
        if attrs.has(type(value)) and not isinstance(value, Selection):
            yield f"{indent}{field.name}:"
            yield from _lines(value, f"{path}.", sources)
        else:
            # In a list, because a document of one scalar is written with an end mark.
            text = yaml.dump([plain(value)], Dumper=_Dumper, **_ONE_LINE)
            where = dict.fromkeys(source for known, source in sources.items() if f"{known}.".startswith(f"{path}."))
            yield f"{indent}{field.name}: {text.strip()[1:-1]}  # {', '.join(where) or 'default'}"
