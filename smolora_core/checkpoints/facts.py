"""What a checkpoint says of its circumstances: versions, parameters, and what it was made from."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from smolora_core.config.continuity import continuity_of, leaves

_PACKAGES = ("smolora", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "safetensors")


def versions_of(plugins: Iterable[Any]) -> dict[str, str]:
    """List the versions of Python, of the packages that training rests on, and of the distributions that bring plugins.

    Args:
        plugins: those that are loaded.
    """
    brought = {each.origin.distribution: each.origin.version for each in plugins if each.origin.distribution}
    known = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **known, **dict(sorted(brought.items()))}


def version_changes(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Say which versions changed."""
    names = dict.fromkeys((*saved, *now))
    changed = [name for name in names if saved.get(name) != now.get(name)]
    return [f"{name} was {saved.get(name, 'not there')} and is {now.get(name, 'not there')}" for name in changed]


def parameters_of(model: Any) -> list[list[Any]]:
    """List name, shape and dtype of what is trained."""
    return [
        [name, list(each.shape), str(each.dtype).removeprefix("torch.")]
        for name, each in model.named_parameters()
        if each.requires_grad
    ]


def config_hash(config: Mapping[str, Any]) -> str:
    """Digest the keys of a config, as plain values, that decide what is learned."""
    exact = {name: value for name, value in leaves(config) if continuity_of(name) == "exact"}
    return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()
