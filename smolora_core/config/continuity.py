"""What each key of a config means for a run that is continued.

`exact` keys decide what is learned: a run continued with another value would be neither of the two. `content` keys say where
something lies; what lies there must be the same, under whatever name. `schedule` keys may change, and the new value holds from
there on. `free` keys change nothing that is learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from smolora_core.config.secrets import same

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
