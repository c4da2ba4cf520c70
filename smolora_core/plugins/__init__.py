"""Discover, load and select everything pluggable; built-ins use the same mechanism as third parties."""

from smolora_core.components import KINDS, Component
from smolora_core.plugins.discovery import Origin, Tier
from smolora_core.plugins.loading import build
from smolora_core.plugins.manager import PluginChoice, PluginManager
from smolora_core.plugins.plugin import Plugin
from smolora_core.plugins.registry import Registered, Registry
from smolora_core.plugins.selection import Chosen, default_strategies

__all__ = [
    "KINDS",
    "Chosen",
    "Component",
    "Origin",
    "Plugin",
    "PluginChoice",
    "PluginManager",
    "Registered",
    "Registry",
    "Tier",
    "build",
    "default_strategies",
]
