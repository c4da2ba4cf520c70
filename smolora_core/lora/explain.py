"""Why these modules are adapted and those are not, told from names and shapes alone."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from smolora_core.components import Targets
from smolora_core.config import LoRAConfig
from smolora_core.lora.options import targets_of
from smolora_core.lora.targets import TargetChoice
from smolora_core.model.header import ModelHeader
from smolora_core.model.roles import attention_of, end_of, left_alone
from smolora_core.plugins import Registered, Registry

Counts = dict[str, dict[str, int]]

_MLP = re.compile(r"mlp|ffn|feed_?forward|dense|intermediate|\b(fc|ff|wi|wo|w|lin)_?\d?\b", re.I)


@attrs.frozen
class Explanation:
    """What is adapted in a model, and why.

    Attributes:
        model_type: the architecture.
        choice: the modules and whose word it was.
        overruled: other records that speak for the architecture.
        adapted: counts of the adapted modules, by role and by what follows their block's number.
        left_out: counts of the others, by reason.
        trainable: parameters of the adapter.
        total: parameters of the model.
    """

    model_type: str
    choice: TargetChoice
    overruled: tuple[Registered[Targets], ...]
    adapted: Counts
    left_out: Counts
    trainable: int
    total: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
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
    """Choose what is adapted in a model, and account for every layer.

    Args:
        header: the model's config and shapes.
        lora: rank and targets.
        registry: where plugins' records are.
        where: says where the user wrote a key.

    Raises:
        ConfigError: as for `targets_of`.
    """
    choice = targets_of(lora, header.model_type, header.modules, registry, where, tied=header.tied)
    adapted = set(choice.modules)
    layers = [name.removesuffix(".weight") for name, shape in header.shapes.items() if _is_matrix(name, shape)]
    attention = set(attention_of(layers, header.modules))
    speaking = (found for found in registry.of_kind(Targets) if _speaks(found, header.model_type))
    return Explanation(
        header.model_type,
        choice,
        tuple(found for found in speaking if found != choice.record),
        _counted((_role(layer, attention), layer) for layer in layers if layer in adapted),
        _counted((left_alone(layer, layers) or "not matched", layer) for layer in layers if layer not in adapted),
        lora.r * sum(sum(header.modules[module]) for module in choice.modules),
        sum(map(math.prod, header.shapes.values())),
    )


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return name.endswith(".weight") and len(shape) == 2


def _speaks(found: Registered[Targets], model_type: str) -> bool:
    return isinstance(found.component, Targets) and model_type in found.component.model_types


def _role(layer: str, attention: set[str]) -> str:
    if layer in attention:
        return "attention"
    return "feed-forward" if _MLP.search(end_of(layer)) else "other"


def _counted(layers: Iterable[tuple[str, str]]) -> Counts:
    counts: Counts = {}
    for group, layer in layers:
        ends = counts.setdefault(group, {})
        ends[end_of(layer)] = ends.get(end_of(layer), 0) + 1
    return counts


def _plain(found: Registered[Targets]) -> dict[str, str]:
    tier = found.origin.tier.name.lower().replace("_", "-")
    return {"name": found.component.name, "from": str(found.origin), "tier": tier}
