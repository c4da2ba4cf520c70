"""The built-in losses by name, as a run gets them."""

from collections.abc import Callable
from typing import Any

from smolora_core import Loss
from smolora_core.config import convert
from smolora_core.plugins import PluginManager, Registered, Tier, build

REGISTRY = PluginManager.create().registry
BUILT_IN: dict[str, Registered] = {
    found.component.name: found for found in REGISTRY.of_kind(Loss) if found.origin.tier is Tier.BUILT_IN
}


def made(name: str, **options: Any) -> Callable[..., Any]:
    """Make a loss with options as they stand in a config."""
    found = BUILT_IN[name]
    kind = found.component.options
    return build(found, convert(options, kind, {}, "loss") if kind else None)


def of_kind(kind: str) -> list[str]:
    return [name for name, found in BUILT_IN.items() if found.component.kind == kind]
