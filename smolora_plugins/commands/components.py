"""`smolora components`."""

import json as json_module
from typing import Any

import attrs

from smolora_core import PluginError, did_you_mean
from smolora_core.cli import Json, PluginFlags, load_plugins
from smolora_core.plugins import KINDS, Component, Registered, Registry


def components(kind: str | None = None, *, plugins: PluginFlags | None = None, json: Json = False) -> None:
    """List what plugins offer.

    Args:
        kind: list one kind only: targets, preprocessors, losses, memory-strategies, checkpoint-writers or tasks.
        plugins: which plugins to load.
        json: print JSON.

    Raises:
        PluginError: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise PluginError(f"unknown kind of component {kind!r}", hint=did_you_mean(kind, KINDS))
    registry = load_plugins(plugins).registry
    wanted = {kind: KINDS[kind]} if kind else dict(KINDS)
    if json:
        listed = [
            {"kind": plural, "name": found.component.name, "summary": found.component.summary, "from": str(found.origin)}
            | {"chosen_by": _spelling(registry, found), "options": list(_options(found.component))}
            for plural, record in wanted.items()
            for found in registry.of_kind(record)
        ]
        print(json_module.dumps(listed, indent=1))
        return
    for plural, record in wanted.items():
        print(plural)
        for found in registry.of_kind(record):
            options = ", ".join(_options(found.component))
            print(f"  {_spelling(registry, found):<20} {found.component.summary}  [{found.origin}]")
            if options:
                print(f"  {'':<20} options: {options}")


def _spelling(registry: Registry, found: Registered[Component]) -> str:
    return found.component.name if registry.is_default_for_its_name(found) else found.qualified_name


def _options(component: Component) -> list[str]:
    if component.options is None:
        return []
    fields = attrs.fields(component.options)
    return [field.alias if field.default is attrs.NOTHING else f"{field.alias} ({_default(field.default)})" for field in fields]


def _default(default: Any) -> str:
    """Write a default as a config would."""
    value = default.factory() if hasattr(default, "factory") else default
    return value if isinstance(value, str) and value.isprintable() else json_module.dumps(value, default=str)
