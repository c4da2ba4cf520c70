"""Whether a run may be continued: what its checkpoint says it was made from, beside what it would go on with."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from smolora_core.config.continuity import Change, changes
from smolora_core.errors import ConfigError, Problem, did_you_mean

__all__ = ["compare_config", "compare_content"]


def compare_config(
    saved: Mapping[str, Any], config: Mapping[str, Any], overrides: Collection[str], where: Callable[[str], str]
) -> list[str]:
    """Compare the config of a checkpoint with that of the run which continues it.

    Args:
        saved: of the checkpoint, as plain values.
        config: of the run, as plain values.
        overrides: keys that may change although they decide what is learned.
        where: says where a key was given.

    Returns:
        What changes and is allowed to.

    Raises:
        ConfigError: a key that decides what is learned has another value, or an override names no key.
    """
    found = changes(saved, config)
    known = {change.key for change in found} | set(_keys(config))
    for key in overrides:
        if not any(_covers(key, name) for name in known):
            raise ConfigError(f"no key is called {key!r}", where="--override", hint=did_you_mean(key, known))
    refused = [each for each in found if each.continuity == "exact" and not any(_covers(key, each.key) for key in overrides)]
    if refused:
        raise ConfigError.of(_refusal(change, where(change.key)) for change in refused)
    allowed = (each for each in found if each.continuity in ("exact", "schedule"))
    return [f"{change}; the new value holds from here on" for change in allowed]


def compare_content(key: str, saved: str | None, found: str | None, overrides: Collection[str], where: str) -> list[str]:
    """Compare what a config key points to with what it pointed to.

    Args:
        key: of the config: `model.path`, `data.train` or `data.chat_template`.
        saved: fingerprint in the checkpoint; None where none could be made.
        found: fingerprint now.
        overrides: keys that may change.
        where: the key was given.

    Returns:
        What changes and is allowed to.

    Raises:
        ConfigError: something else lies there now.
    """
    if saved is None or found is None or saved == found:
        return []
    what = {"model.path": "the base model", "data.train": "the rows to train on"}.get(key, "the chat template")
    text = f"{what} changed since the checkpoint"
    if not any(_covers(name, key) for name in overrides):
        raise ConfigError(text, where=where or f"{key}:", hint=_way_out(key))
    return [f"{text}; what is there now holds from here on"]


def _refusal(change: Change, where: str) -> Problem:
    return Problem(str(change), where=where, hint=_way_out(change.key))


def _way_out(key: str) -> str:
    return f"a run goes on as it began: set it back, or allow it with --override {key}"


def _covers(key: str, name: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _keys(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in config.items():
        found += _keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else [f"{prefix}{name}"]
    return found
