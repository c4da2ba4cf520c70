"""Whether a run may be continued: what its checkpoint says it was made from, beside what it would go on with."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

import attrs

from smolora_core.config.continuity import Change, changes, leaves
from smolora_core.config.sections import RunConfig, Selection
from smolora_core.errors import ConfigError, Problem, nearest

_CONTENT = {
    "model.path": "the base model",
    "data.train": "the rows to train on",
    "data.eval": "the rows held out",
    "data.chat_template": "the chat template",
    "task": "the code of the task",
    "loss": "the code of the loss",
    "memory": "what memory strategies make of the model",
}


def check_overrides(overrides: Collection[str]) -> None:
    """Hold overrides against the keys that every config has, for where no checkpoint says which options there were.

    Raises:
        ConfigError: an override names no key.
    """
    keys = dict(_declared(RunConfig))
    options = [key for key, has_options in keys.items() if has_options]
    known = (
        key for key in overrides if any(_covers(key, name) for name in keys) or any(_covers(each, key) for each in options)
    )
    _refuse_unknown({*overrides} - {*known}, keys)


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
    known = {change.key for change in found} | dict(leaves(config)).keys()
    # One that holds nothing is a key all the same.
    named = (key for key in overrides if key in dict(_declared(RunConfig)) or any(_covers(key, name) for name in known))
    _refuse_unknown({*overrides} - {*named}, known)
    refused = [each for each in found if each.continuity == "exact" and not any(_covers(key, each.key) for key in overrides)]
    if refused:
        raise ConfigError.of(_refusal(change, where(change.key)) for change in refused)
    allowed = (each for each in found if each.continuity in ("exact", "schedule"))
    return [f"{change}; the new value holds from here on" for change in allowed]


def compare_content(key: str, saved: str | None, found: str | None, overrides: Collection[str], where: str) -> list[str]:
    """Compare what a config key points to with what it pointed to.

    Args:
        key: of the config, one of those that point to something.
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
    text = f"{_CONTENT[key]} changed since the checkpoint"
    if not any(_covers(name, key) for name in overrides):
        raise ConfigError(text, where=where or f"{key}:", hint=_way_out(key))
    return [f"{text}; what is there now holds from here on"]


def _refusal(change: Change, where: str) -> Problem:
    return Problem(str(change), where=where, hint=_way_out(change.key))


def _way_out(key: str) -> str:
    return f"a run goes on as it began: set it back, or allow it with --override {key}"


def _refuse_unknown(overrides: Iterable[str], known: Collection[str]) -> None:
    hint = f"sections: {', '.join(sorted({key.partition('.')[0] for key in known}))}"
    problems = [
        Problem(f"no key is called {key!r}", where="--override", hint=nearest(key, known) or hint) for key in sorted(overrides)
    ]
    if problems:
        raise ConfigError.of(problems)


def _declared(section: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """List the keys of a section, each with whether what stands in it is for a component or a library to say."""
    for field in attrs.fields(section):
        kinds = (field.type, *get_args(field.type))
        if field.type is not None and attrs.has(field.type) and field.type is not Selection:
            yield from _declared(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", any(kind is Selection or get_origin(kind) is Mapping for kind in kinds)


def _covers(key: str, name: str) -> bool:
    return name == key or name.startswith(f"{key}.")
