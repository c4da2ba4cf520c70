"""Built-in LoRA targets: the attention projections of known architectures, one file per family."""

from collections.abc import Iterable

from smolora_core import Targets, hookimpl
from smolora_plugins.targets import (
    bart,
    bert,
    encoders,
    gemma,
    gpt2,
    hybrids,
    llama,
    mixtures,
    neox,
    opt,
    phi,
    t5,
)

_FAMILIES = (llama, gemma, phi, gpt2, neox, opt, hybrids, mixtures, bert, encoders, t5, bart)


@hookimpl
def smolora_targets() -> Iterable[Targets]:
    """Register the families with known module names."""
    for family in _FAMILIES:
        yield from family.RECORDS
