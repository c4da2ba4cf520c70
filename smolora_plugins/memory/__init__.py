"""Memory strategies that come with SmoLoRA."""

from collections.abc import Iterable

import attrs

from smolora_core import MemoryStrategy, hookimpl


@attrs.frozen(kw_only=True)
class ClearCache:
    """Options of `clear-cache`."""

    interval: int = 50
    """Optimizer steps between two clearings."""


@hookimpl
def smolora_memory_strategies() -> Iterable[MemoryStrategy]:
    """Offer the built-in strategies."""
    yield MemoryStrategy(
        name="clear-cache",
        summary="give the device's cached memory back now and then",
        devices=("cuda", "mps"),
        default=True,
        options=ClearCache,
        implementation="smolora_plugins.memory.clear_cache:ClearDeviceCache",
    )
