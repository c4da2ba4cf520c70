"""Write a resolved config back as YAML, each value with its source as a comment."""

import json
from collections.abc import Iterator
from typing import Any

import attrs

from smolora_core.config.load import Resolved
from smolora_core.config.model import Selection

__all__ = ["dump", "plain"]


def dump(resolved: Resolved) -> str:
    """Spell a config so that reading it again gives the same config."""
    return "\n".join(_lines(plain(resolved.config), "", resolved)) + "\n"


def plain(value: Any) -> Any:
    """Turn sections and selections into dicts, lists and scalars; a bare selection becomes its name."""
    if isinstance(value, Selection):
        return {"name": value.name, **plain(dict(value.options))} if value.options else value.name
    if attrs.has(type(value)):
        return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _lines(values: dict[str, Any], prefix: str, resolved: Resolved) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, f"{path}.", resolved)
        else:
            # JSON is YAML, and one line.
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}  # {resolved.sources.get(path, 'default')}"
