"""What may change when a run resumes: the rule for each config key, and the comparison with the checkpoint.

- `exact` keys must not change: the result would belong to neither config.
- `content` keys say where something is; it may move, but `compare_content` requires the same content.
- `schedule` keys may change; the new value applies from the resumed step on.
- `free` keys may change, as they do not affect the result.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import attrs

from smolora_core.config.secrets import equal_except_secrets
from smolora_core.config.sections import RunConfig, Selection
from smolora_core.errors import ConfigError, Problem, nearest

Rule = Literal["exact", "content", "schedule", "free"]

# A key without an entry follows its nearest parent: `loss` covers the options of whichever loss is chosen.
_RULES: Mapping[str, Rule] = {
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
    "training.per_device_train_batch_size": "free",
    "training.effective_batch_size": "free",
    "training.max_tokens_per_batch": "exact",
    "training.per_device_eval_batch_size": "free",
    "training.gradient_accumulation_steps": "free",
    "training.logging_steps": "free",
    "training.eval_steps": "free",
    "training.sample_prompts": "free",
    "training.metric": "exact",
    "training.final_adapter": "free",
    "training.early_stopping": "free",
    "training.max_time": "free",
    "training.batching": "exact",
    "training.fast_kernels": "exact",
    "training.extra": "exact",
    "training.extra.lr_scheduler_type": "schedule",
    "training.extra.lr_scheduler_kwargs": "schedule",
    "training.extra.warmup_steps": "schedule",
    "training.extra.dataloader_num_workers": "free",
    "training.extra.logging_first_step": "free",
    "training.extra.logging_strategy": "free",
    "training.extra.report_to": "free",
    "training.extra.run_name": "free",
    "loss": "exact",
    "memory": "schedule",
    "checkpoints": "free",
    "plugins": "free",
    "debug": "free",
}
# What `compare_content` compares. Keys with other rules are here too: besides its value, what stands behind it must not change,
# such as the code of a loss, or the weights that a lossy memory strategy produces.
_CONTENT = {
    "model.path": "the base model",
    "data.train": "the training data",
    "data.eval": "the held-out data",
    "data.chat_template": "the chat template",
    "task": "the code of the task",
    "loss": "the code of the loss",
    "memory": "the model that the memory strategies produce",
}


@attrs.frozen
class Change:
    """A key whose value differs from the checkpoint's; None stands for a value that is not set."""

    key: str
    old: Any
    new: Any
    rule: Rule

    def __str__(self) -> str:
        old, new = ("not set" if value is None else repr(value) for value in (self.old, self.new))
        return f"{self.key} changed from {old} to {new}"


def rule_of(key: str, default: Rule | None = None) -> Rule:
    """Return the rule for a key.

    Raises:
        KeyError: neither the key nor a parent of it has a rule, and there is no default.
    """
    while key not in _RULES and "." in key:
        key = key.rpartition(".")[0]
    return _RULES[key] if default is None else _RULES.get(key, default)


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Compare two configs as plain values, key by key; a key that only the old one has may be another version's, so it is free.

    Raises:
        KeyError: the new config has a key without a rule.
    """
    before, after = dict(leaves(old)), dict(leaves(new))
    changed = [
        key for key in dict.fromkeys((*before, *after)) if not equal_except_secrets(key, before.get(key), after.get(key))
    ]
    rules = (rule_of(key, None if key in after else "free") for key in changed)
    return [Change(key, before.get(key), after.get(key), rule) for key, rule in zip(changed, rules, strict=True)]


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested mappings into pairs of dotted key and value; an empty mapping yields nothing."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(inner) if isinstance(inner, Sequence) and not isinstance(inner, str) else inner


def compare_config(
    saved: Mapping[str, Any], config: Mapping[str, Any], overrides: Collection[str], where: Callable[[str], str]
) -> list[str]:
    """Compare a checkpoint's config with that of the run resuming it, both as plain values, and describe accepted changes.

    Raises:
        ConfigError: an exact key changed without an override, or an override names no key.
    """
    found = changes(saved, config)
    known = {change.key for change in found} | dict(leaves(config)).keys()
    declared = dict(_declared(RunConfig))
    # A declared key can be overridden even where it is an empty mapping, which has no leaves.
    unknown = [key for key in overrides if key not in declared and not any(covers(key, name) for name in known)]
    _refuse_unknown(unknown, known)
    refused = [each for each in found if each.rule == "exact" and not any(covers(key, each.key) for key in overrides)]
    if refused:
        raise ConfigError.of(Problem(str(each), where=where(each.key), hint=override_hint(each.key)) for each in refused)
    return [f"{each}; the new value is used from here on" for each in found if each.rule in ("exact", "schedule")]


def compare_content(key: str, saved: str | None, found: str | None, overrides: Collection[str], where: str) -> list[str]:
    """Compare the fingerprints of what a key points to, in the checkpoint and now, and describe an accepted change.

    A fingerprint that could not be computed, None, matches any other.

    Raises:
        ConfigError: the content changed without an override.
    """
    if saved is None or found is None or saved == found:
        return []
    text = f"{_CONTENT['.'.join(key.split('.')[:2])]} changed since the checkpoint"
    if not any(covers(name, key) for name in overrides):
        raise ConfigError(text, where=where or f"{key}:", hint=override_hint(key))
    return [f"{text}; the new content is used from here on"]


def check_overrides(overrides: Collection[str]) -> None:
    """Check overrides against the keys every config has, before a checkpoint tells which options there are.

    Raises:
        ConfigError: an override names no key.
    """
    keys = dict(_declared(RunConfig))
    unknown = [
        key
        for key in overrides
        if not any(covers(key, name) or (is_open and covers(name, key)) for name, is_open in keys.items())
    ]
    _refuse_unknown(unknown, keys)


def override_hint(key: str) -> str:
    """Say what to do about a key that changed."""
    return f"this key cannot change on resume; restore it, or pass --override {key}"


def _refuse_unknown(unknown: Iterable[str], known: Collection[str]) -> None:
    sections = f"sections: {', '.join(sorted({key.partition('.')[0] for key in known}))}"
    problems = [
        Problem(f"unknown key {key!r}", where="--override", hint=nearest(key, known) or sections) for key in sorted({*unknown})
    ]
    if problems:
        raise ConfigError.of(problems)


def _declared(section: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the keys of a section, each with whether components or libraries define more keys inside it."""
    for field in attrs.fields(section):
        kinds = (field.type, *get_args(field.type))
        if field.type is not None and attrs.has(field.type) and field.type is not Selection:
            yield from _declared(field.type, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", any(kind is Selection or get_origin(kind) is Mapping for kind in kinds)


def covers(key: str, name: str) -> bool:
    """Whether an override of `key` allows `name` to change."""
    return name == key or name.startswith(f"{key}.")
