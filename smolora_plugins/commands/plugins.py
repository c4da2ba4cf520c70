"""`smolora plugins`."""

import json as json_module
from typing import Any

from smolora_core import PluginError, did_you_mean
from smolora_core.cli import Json, PluginFlags, load_plugins
from smolora_core.plugins import Plugin, Tier


def list_plugins(*, plugins: PluginFlags | None = None, json: Json = False) -> None:
    """List every plugin and its state."""
    found = load_plugins(plugins).plugins
    if json:
        print(json_module.dumps([_plain(plugin) for plugin in found], indent=1))
        return
    rows = [(p.origin.plugin, str(p.origin), _tier(p), p.state, _names(p)) for p in found]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())


def info(name: str, *, plugins: PluginFlags | None = None, json: Json = False) -> None:
    """Show one plugin.

    Args:
        name: a plugin or its distribution.
        plugins: which plugins to load.
        json: print JSON.

    Raises:
        PluginError: the plugin is unknown.
    """
    found = load_plugins(plugins).plugins
    meant = [plugin for plugin in found if name in plugin.origin.aliases]
    if not meant:
        known = {known for plugin in found for known in plugin.origin.aliases}
        raise PluginError(f"unknown plugin {name!r}", hint=did_you_mean(name, known))
    if json:
        print(json_module.dumps([_plain(plugin) for plugin in meant], indent=1))
        return
    for plugin in meant:
        print(f"{plugin.origin.plugin}  {plugin.origin}  {_tier(plugin)}  {plugin.state}")
        print(f"  from {plugin.origin.location}, imported in {1000 * plugin.seconds:.1f} ms")
        for registered in plugin.components:
            component = registered.component
            print(f"  {component.plural}: {component.name}  {component.summary}")
        for problem in plugin.problems:
            print(f"  problem: {problem}")


def _plain(plugin: Plugin) -> dict[str, Any]:
    return {
        "plugin": plugin.origin.plugin,
        "distribution": plugin.origin.distribution,
        "version": plugin.origin.version,
        "tier": _tier(plugin),
        "state": plugin.state,
        "location": plugin.origin.location,
        "import_seconds": round(plugin.seconds, 4),
        "components": {
            f"{found.component.plural}:{found.component.name}": found.component.summary for found in plugin.components
        },
        "problems": [str(problem) for problem in plugin.problems],
    }


def _tier(plugin: Plugin) -> str:
    return {Tier.BUILT_IN: "built-in", Tier.THIRD_PARTY: "third-party", Tier.USER: "yours"}[plugin.origin.tier]


def _names(plugin: Plugin) -> str:
    if plugin.state == "failed":
        return str(plugin.problems[0].what)
    return ", ".join(found.component.name for found in plugin.components)
