"""What a run is made from: recorded in its checkpoints, and compared with the checkpoint it resumes from."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import attrs

from smolora_core.checkpoints.resume_rules import compare_config, compare_content, covers, leaves, override_hint, rule_of
from smolora_core.checkpoints.retention import Committed
from smolora_core.errors import ConfigError

_FINGERPRINTS = "fingerprints"
# The keys that together set the size of a step; a run that overrides one of them gets the size that its config sets.
_SIZES = (
    "training.effective_batch_size",
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.max_tokens_per_batch",
)
_PACKAGES = ("smolora", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "safetensors")


@attrs.define
class Identity:
    """Collects the facts that checkpoints record, and compares each with the resumed checkpoint as soon as it is known.

    Attributes:
        checkpoint: the checkpoint to resume from; None for a new run.
        overrides: the keys that may differ from the checkpoint.
        where: maps a key to where it was set.
        values: the run's config as plain values.
        facts: everything else that manifests record, by name.
    """

    checkpoint: Committed | None
    overrides: Collection[str]
    where: Callable[[str], str]
    values: Mapping[str, Any] = attrs.field(factory=dict)
    facts: dict[str, Any] = attrs.field(factory=dict)
    _changes: list[str] = attrs.field(factory=list, init=False)

    def config(self, config: Mapping[str, Any], plugins: Iterable[Any]) -> None:
        """Record the config, as plain values without secrets, and the versions of Python, libraries and plugins.

        Raises:
            ConfigError: a key that must not change on resume has changed, or an override names no key.
        """
        self.values = config
        self.facts |= {"config_hash": _config_hash(config), "versions": _versions(plugins), _FINGERPRINTS: {}}
        if self.checkpoint is not None:
            manifest = self.checkpoint.manifest
            self._changes += compare_config(manifest.config, config, self.overrides, self.where)
            self._changes += _version_changes(manifest.facts.get("versions", {}), self.facts["versions"])
            if self.overrides:
                self.facts["overrides"] = sorted({*manifest.facts.get("overrides", ()), *self.overrides})

    def content(self, key: str, fingerprint: str | None) -> None:
        """Record the fingerprint of the content that a key points to.

        Raises:
            ConfigError: the content has changed since the checkpoint.
        """
        self.facts[_FINGERPRINTS][key] = fingerprint
        saved = self._saved(_FINGERPRINTS, {}).get(key)
        self._changes += compare_content(key, saved, fingerprint, self.overrides, self.where(key))

    def units_per_step(self, wanted: int | None, otherwise: int) -> int:
        """Record the rows, or filled micro-batches, in an optimizer step, and return them; a resumed run keeps its number.

        Args:
            wanted: the number that the config sets for any number of processes, if it does.
            otherwise: the number that follows from micro-batch, accumulation and processes.

        Raises:
            ConfigError: the config sets another number than the checkpoint's, without an override.
        """
        number, saved = wanted or otherwise, self._saved("units_per_step")
        allowed = any(covers(key, each) for key in self.overrides for each in _SIZES)
        if saved is not None and number != saved and not allowed:
            if wanted is not None:
                what = f"{_SIZES[0]} changed from {saved} to {wanted}"
                raise ConfigError(what, where=self.where(_SIZES[0]), hint=override_hint(_SIZES[0]))
            self._changes.append(f"an optimizer step keeps its {saved} rows; the config would have made it {number}")
            number = int(saved)
        self.facts["units_per_step"] = number
        return number

    def model(self, model: Any, dtype: str, device: str) -> None:
        """Record the trainable parameters, and the base model's dtype and device."""
        params = [
            [name, list(each.shape), str(each.dtype).removeprefix("torch.")]
            for name, each in model.named_parameters()
            if each.requires_grad
        ]
        self.facts |= {"params": params, "dtype": dtype, "device": device}

    def note(self, name: str, value: Any) -> None:
        """Record a fact that may change on resume; a change is returned by `take_changes`."""
        self.facts[name] = value
        if (saved := self._saved(name, value)) != value:
            self._changes.append(f"{name} changed from {saved} to {value}")

    @property
    def dtype(self) -> str | None:
        """The base model's dtype in the checkpoint; measuring again might choose another."""
        saved = self._saved("dtype")
        return str(saved) if saved else None

    @property
    def micro_batch(self) -> int | None:
        """The micro-batch size found for the checkpoint's run; searching again might find another."""
        saved = self._saved("micro_batch")
        return int(saved) if saved else None

    def take_changes(self) -> list[str]:
        """Return the accepted changes since the last call."""
        changes, self._changes = self._changes, []
        return changes

    def _saved(self, name: str, default: Any = None) -> Any:
        return self.checkpoint.manifest.facts.get(name, default) if self.checkpoint else default


def _config_hash(config: Mapping[str, Any]) -> str:
    """Hash the keys that must not change on resume."""
    exact = {key: value for key, value in leaves(config) if rule_of(key) == "exact"}
    return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()


def _versions(plugins: Iterable[Any]) -> dict[str, str]:
    provided = {each.origin.distribution: each.origin.version for each in plugins if each.origin.distribution}
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages, **dict(sorted(provided.items()))}


def _version_changes(saved: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = [name for name in dict.fromkeys((*saved, *now)) if saved.get(name) != now.get(name)]
    missing = "not installed"
    return [f"{name} changed from {saved.get(name, missing)} to {now.get(name, missing)}" for name in changed]
