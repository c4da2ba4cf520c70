"""What a run is made from, noted for its checkpoints and held against the one that it goes on from."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from smolora_core.checkpoints.resume_rules import compare_config, compare_content, continuity_of, leaves
from smolora_core.checkpoints.retention import Committed

_CONTENT = "fingerprints"


@attrs.define
class Identity:
    """Facts for the checkpoints to come, each compared with what the checkpoint says as soon as it is known.

    Attributes:
        checkpoint: to go on from; None where the run begins.
        overrides: keys that may be other than they were.
        where: says where a key was given.
        values: the config as manifests hold it.
        facts: by name, as manifests hold them.
        said: what changes and is allowed to.
    """

    checkpoint: Committed | None
    overrides: Collection[str]
    where: Callable[[str], str]
    values: Mapping[str, Any] = attrs.field(factory=dict)
    facts: dict[str, Any] = attrs.field(factory=dict)
    said: list[str] = attrs.field(factory=list)

    def config(self, config: Mapping[str, Any], plugins: Iterable[Any]) -> None:
        """Take the config as plain values that may be written, as `plain` makes them, and the versions of everything.

        Raises:
            ConfigError: a key that decides what is learned is not what it was, or an override names no key of it.
        """
        self.values = config
        self.facts |= {"config_hash": config_hash(config), "versions": versions_of(plugins), _CONTENT: {}}
        if self.checkpoint is not None:
            manifest = self.checkpoint.manifest
            self.said += compare_config(manifest.config, config, self.overrides, self.where)
            self.said += version_changes(manifest.facts.get("versions", {}), self.facts["versions"])
            if self.overrides:
                self.facts["overrides"] = sorted({*manifest.facts.get("overrides", ()), *self.overrides})

    def content(self, key: str, fingerprint: str | None) -> None:
        """Take the fingerprint of what a key points to.

        Raises:
            ConfigError: it is not what it was.
        """
        self.facts[_CONTENT][key] = fingerprint
        if self.checkpoint is not None:
            saved = self.checkpoint.manifest.facts.get(_CONTENT, {}).get(key)
            self.said += compare_content(key, saved, fingerprint, self.overrides, self.where(key))

    def model(self, model: Any, dtype: str, device: str) -> None:
        """Take what is trained, and in which format and where the base computes."""
        self.facts |= {"params": parameters_of(model), "dtype": dtype, "device": device}

    def note(self, name: str, value: Any) -> None:
        """Take a fact that may change, and is said when it does."""
        self.facts[name] = value
        saved = self.checkpoint.manifest.facts.get(name, value) if self.checkpoint else value
        if saved != value:
            self.said.append(f"{name} was {saved} and is {value}")

    @property
    def dtype(self) -> str | None:
        """The format that the base had, so that a measurement is not made again with another outcome."""
        found = self.checkpoint and self.checkpoint.manifest.facts.get("dtype")
        return str(found) if found else None

    @property
    def micro_batch(self) -> int | None:
        """The rows that a micro-batch had where they were found by trying, which might now find another number."""
        found = self.checkpoint and self.checkpoint.manifest.facts.get("micro_batch")
        return int(found) if found else None

    def news(self) -> list[str]:
        """Give what was said since the last time."""
        said, self.said = self.said, []
        return said


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
