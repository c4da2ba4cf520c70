"""Which keys of a config may change when a run resumes, and the errors for those that may not.

`exact` keys decide what is learned: resumed with another value, the run would be neither of the two. `content` keys say where
something lies; the content must be the same, under whatever name. `schedule` keys may change, and the new value holds from
there on. `free` keys change nothing that is learned.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import attrs

from smolora_core.config.secrets import same
from smolora_core.config.sections import RunConfig, Selection
from smolora_core.errors import ConfigError, Problem, nearest

Continuity = Literal["exact", "content", "schedule", "free"]

# The longest entry that a key begins with speaks for it, so that `loss` covers the options of whatever loss is chosen.
_KEYS: Mapping[str, Continuity] = {
    "model.path": "content",
    "model.dtype": "exact",
    "model.revision": "content",
    "model.trust_remote_code": "free",
    "model.device": "free",
    "task": "exact",
    "output_dir": "free",
    "seed": "exact",
    "data": "exact",
    "data.train": "content",
    "data.eval": "exact",
    "data.max_row_loss": "free",
    "data.num_proc": "free",
    "data.cache": "free",
    "lora": "exact",
    "training.num_train_epochs": "schedule",
    "training.max_steps": "schedule",
    "training.learning_rate": "schedule",
    "training.per_device_train_batch_size": "exact",
    "training.effective_batch_size": "exact",
    "training.max_tokens_per_batch": "exact",
    "training.per_device_eval_batch_size": "free",
    "training.gradient_accumulation_steps": "exact",
    "training.logging_steps": "free",
    "training.eval_steps": "free",
    "training.batching": "exact",
    "training.fast_kernels": "exact",
    "training.extra": "exact",
    "training.extra.lr_scheduler_type": "schedule",
    "training.extra.lr_scheduler_kwargs": "schedule",
    "training.extra.warmup_steps": "schedule",
    "training.extra.dataloader_num_workers": "free",
    "training.extra.logging_first_step": "free",
    "training.extra.disable_tqdm": "free",
    "loss": "exact",
    "memory": "schedule",
    "checkpoints": "free",
    "plugins": "free",
    "debug": "free",
}


@attrs.frozen
class Change:
    """A key that has another value than it had.

    Attributes:
        key: its path.
        old: as it was; None where it was not given.
        new: as it is.
        continuity: what the change means.
    """

    key: str
    old: Any
    new: Any
    continuity: Continuity

    def __str__(self) -> str:
        return f"{self.key} was {_spelt(self.old)} and is {_spelt(self.new)}"


def continuity_of(key: str) -> Continuity:
    """Say what a key means for a run that is continued.

    Raises:
        KeyError: no entry speaks for it.
    """
    return _KEYS[_entry(key)]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Compare two configs as plain values, key by key.

    Args:
        old: of the run to continue; what another version had besides is free.
        new: of the run that continues it.
    """
    before, after = dict(leaves(old)), dict(leaves(new))
    changed = [key for key in dict.fromkeys((*before, *after)) if not same(key, before.get(key), after.get(key))]
    return [
        Change(key, before.get(key), after.get(key), continuity_of(key) if key in after else _KEYS.get(_entry(key), "free"))
        for key in changed
    ]


def _entry(key: str) -> str:
    """Find the entry that speaks for a key, or else the section it is in."""
    while key not in _KEYS and "." in key:
        key = key.rpartition(".")[0]
    return key


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of nested mappings, a key as its path; a mapping that is empty has none."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(inner) if isinstance(inner, Sequence) and not isinstance(inner, str) else inner


def _spelt(value: Any) -> str:
    return "not set" if value is None else repr(value)


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
