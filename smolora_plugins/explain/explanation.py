"""Explain which modules of a model are adapted and why, from names and shapes alone."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from smolora_core import LoRAConfig, Targets
from smolora_core.lora import TargetChoice, resolve_targets
from smolora_core.model import ModelHeader, attention_modules, name_in_block, skip_reason
from smolora_core.plugins import Registered, Registry

Counts = dict[str, dict[str, int]]

_MLP = re.compile(r"mlp|ffn|feed_?forward|dense|intermediate|\b(fc|ff|wi|wo|w|lin)_?\d?\b", re.I)


@attrs.frozen
class Explanation:
    """The adapted modules of a model and the reasons.

    Attributes:
        choice: the chosen modules and the reason.
        overruled: other records for this architecture.
        adapted: counts of the adapted layers, by role and by name within the block.
        left_out: counts of the other layers, by reason and by name within the block.
    """

    model_type: str
    choice: TargetChoice
    overruled: tuple[Registered[Targets], ...]
    adapted: Counts
    left_out: Counts
    trainable: int
    total: int

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain JSON values."""
        return {
            "model_type": self.model_type,
            "reason": self.choice.reason,
            "record": _plain(self.choice.record) if self.choice.record else None,
            "overruled": list(map(_plain, self.overruled)),
            "target_modules": list(self.choice.patterns),
            "modules": list(self.choice.modules),
            "adapted": self.adapted,
            "left_out": self.left_out,
            "trainable": self.trainable,
            "total": self.total,
        }


def explain(header: ModelHeader, lora: LoRAConfig, registry: Registry, where: Callable[[str], str]) -> Explanation:
    """Choose the target modules of a model and give a reason for every layer.

    Raises:
        ConfigError: as `resolve_targets`.
    """
    choice = resolve_targets(lora, header.model_type, header.modules, registry, where, tied=header.tied)
    adapted = set(choice.modules)
    weights = (name for name, shape in header.shapes.items() if name.endswith(".weight") and len(shape) == 2)
    layers = [name.removesuffix(".weight") for name in weights]
    attention = set(attention_modules(layers, header.modules))
    records = (found for found in registry.of_kind(Targets) if header.model_type in found.component.model_types)
    return Explanation(
        header.model_type,
        choice,
        tuple(found for found in records if found != choice.record),
        _count((_role(layer, attention), layer) for layer in layers if layer in adapted),
        _count((skip_reason(layer, layers) or "not matched", layer) for layer in layers if layer not in adapted),
        lora.r * sum(sum(header.modules[module]) for module in choice.modules),
        sum(map(math.prod, header.shapes.values())),
    )


def _role(layer: str, attention: set[str]) -> str:
    if layer in attention:
        return "attention"
    return "feed-forward" if _MLP.search(name_in_block(layer)) else "other"


def _count(layers: Iterable[tuple[str, str]]) -> Counts:
    counts: Counts = {}
    for group, layer in layers:
        names, name = counts.setdefault(group, {}), name_in_block(layer)
        names[name] = names.get(name, 0) + 1
    return counts


def _plain(found: Registered[Targets]) -> dict[str, str]:
    tier = found.origin.tier.name.lower().replace("_", "-")
    return {"name": found.component.name, "from": str(found.origin), "tier": tier}
