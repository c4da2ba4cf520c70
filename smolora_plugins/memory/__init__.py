"""Memory strategies that come with SmoLoRA."""

from collections.abc import Iterable
from typing import Literal

import attrs

from smolora_core import MemoryStrategy, hookimpl
from smolora_core.config import above


@attrs.frozen(kw_only=True)
class ClearCache:
    """Options of `clear-cache`."""

    interval: int = attrs.field(default=50, validator=above(0))
    """Optimizer steps between two clearings."""


@attrs.frozen(kw_only=True)
class Checkpointing:
    """Options of `activation-checkpointing` and `offload-activations`."""

    every_n_layers: int = attrs.field(default=1, validator=above(0))
    """1 computes every layer again; 2 every other one, which takes less time and saves less memory."""


@attrs.frozen(kw_only=True)
class Quantised:
    """Options of `quantised`."""

    format: Literal["nf4", "int8", "torchao-int8"] = "nf4"
    """Number format of the frozen weights: nf4 and int8 of bitsandbytes, or torchao's int8."""
    double_quant: bool = True
    """Whether the scales of nf4 are quantised too."""
    embeddings: bool = False
    """Whether embeddings and the head are kept in 8 bits too, which are much of a small model."""


@hookimpl
def smolora_memory_strategies() -> Iterable[MemoryStrategy]:
    """Offer the built-in strategies."""
    yield MemoryStrategy(
        name="clear-cache",
        summary="collect garbage and give the device's cached memory back now and then",
        devices=("cuda", "mps"),
        default=True,
        options=ClearCache,
        implementation="smolora_plugins.memory.clear_cache:ClearDeviceCache",
    )
    yield MemoryStrategy(
        name="activation-checkpointing",
        summary="forget the activations of layers and compute them again on the way back",
        devices=("cpu", "cuda", "mps"),
        options=Checkpointing,
        variants=({"every_n_layers": 2},),
        implementation="smolora_plugins.memory.activation_checkpointing:CheckpointLayers",
    )
    yield MemoryStrategy(
        name="offload-activations",
        summary="activation checkpointing that keeps the layers' inputs in the memory of the processor",
        devices=("cuda",),
        options=Checkpointing,
        implementation="smolora_plugins.memory.activation_checkpointing:OffloadLayers",
    )
    yield MemoryStrategy(
        name="low-precision",
        summary="frozen weights in 16 bits, also where 32 are faster or model.dtype names them",
        devices=("cpu", "cuda", "mps"),
        lossy=True,
        implementation="smolora_plugins.memory.low_precision:LowPrecisionBase",
    )
    yield MemoryStrategy(
        name="quantised",
        summary="frozen weights in 4 or 8 bits (QLoRA); what is trained stays float32",
        devices=("cpu", "cuda"),
        lossy=True,
        options=Quantised,
        implementation="smolora_plugins.memory.quantised:QuantisedBase",
    )
