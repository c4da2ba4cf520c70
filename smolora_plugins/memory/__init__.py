"""Built-in memory strategies."""

from collections.abc import Iterable
from typing import Literal

import attrs

from smolora_core import MemoryStrategy, hookimpl
from smolora_core.config import above


@attrs.frozen(kw_only=True)
class ClearCache:
    """Options of `clear-cache`."""

    interval: int = attrs.field(default=50, validator=above(0))
    """The number of optimizer steps between two clearings."""


@attrs.frozen(kw_only=True)
class Checkpointing:
    """Options of `activation-checkpointing` and `offload-activations`."""

    every_n_layers: int = attrs.field(default=1, validator=above(0))
    """The interval between checkpointed layers; 2 checkpoints every other layer, which saves time and costs memory."""


@attrs.frozen(kw_only=True)
class Quantised:
    """Options of `quantised`."""

    format: Literal["nf4", "int8", "torchao-int8"] = "nf4"
    """The number format of frozen weights: nf4 or int8 from bitsandbytes, or int8 from torchao."""
    double_quant: bool = True
    """Whether to quantise the scales of nf4 as well."""
    embeddings: bool = False
    """Whether to store embeddings and the head, a large part of a small model, in 8 bits."""


@hookimpl
def smolora_memory_strategies() -> Iterable[MemoryStrategy]:
    """Register the built-in strategies."""
    yield MemoryStrategy(
        name="clear-cache",
        summary="periodic garbage collection and release of the device's cached memory",
        devices=("cuda", "mps"),
        default=True,
        options=ClearCache,
        implementation="smolora_plugins.memory.clear_cache:ClearDeviceCache",
    )
    yield MemoryStrategy(
        name="activation-checkpointing",
        summary="recomputation of layer activations in the backward pass, instead of storing them",
        devices=("cpu", "cuda", "mps"),
        options=Checkpointing,
        variants=({"every_n_layers": 2},),
        implementation="smolora_plugins.memory.activation_checkpointing:CheckpointLayers",
    )
    yield MemoryStrategy(
        name="offload-activations",
        summary="activation checkpointing with layer inputs offloaded to CPU memory",
        devices=("cuda",),
        options=Checkpointing,
        implementation="smolora_plugins.memory.activation_checkpointing:OffloadLayers",
    )
    yield MemoryStrategy(
        name="low-precision",
        summary="frozen weights in 16 bits, overriding model.dtype",
        devices=("cpu", "cuda", "mps"),
        lossy=True,
        implementation="smolora_plugins.memory.low_precision:LowPrecisionBase",
    )
    yield MemoryStrategy(
        name="quantised",
        summary="frozen weights in 4 or 8 bits (QLoRA); trainable weights stay in float32",
        devices=("cpu", "cuda"),
        lossy=True,
        options=Quantised,
        implementation="smolora_plugins.memory.quantised:QuantisedBase",
    )
