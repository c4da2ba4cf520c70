"""Ways to take less memory, each estimated by a fake step, cheapest first."""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from smolora_core import MemoryStrategy, RunContext, SmoLoRAError
from smolora_core.plugins import Chosen
from smolora_core.training import Strategies, build_strategies, describe_strategy
from smolora_plugins.plan.footprint import EstimateInputs, Footprint, footprint


@attrs.frozen(kw_only=True)
class Remedy:
    """A way to take less memory.

    Attributes:
        setting: the setting to add to the config.
        found: the memory that the run then takes; None if the setting cannot be used here.
        slower: the further share of floating-point operations per row: 0.3 is 30 %.
        lossy: whether the setting changes what is learned.
        problem: why the setting cannot be used.
    """

    setting: str
    found: Footprint | None = None
    slower: float = 0.0
    lossy: bool = False
    problem: str = ""


def in_order(remedies: Iterable[Remedy], now: Footprint) -> tuple[Remedy, ...]:
    """Drop remedies that save nothing, and sort the rest by their cost; those that cannot be used come last."""
    saving = [each for each in remedies if each.found is None or each.found.peak < now.peak]
    return tuple(sorted(saving, key=lambda each: (each.found is None, each.lossy, round(each.slower, 2))))


def smaller_micro_batches(
    inputs: EstimateInputs, strategies: Strategies, rows: int, accumulation: int, free: int | None
) -> Iterator[Remedy]:
    """Halve the micro-batch until it fits, and down to one row, keeping the rows in a step."""
    sizes = [rows // 2**power for power in range(1, rows.bit_length())]
    found = dict(zip(sizes, footprint(inputs, strategies, sizes), strict=True)) if sizes else {}
    fitting = next((size for size in sizes if free is not None and found[size].peak <= free), None)
    for size in dict.fromkeys([fitting or sizes[0], 1] if sizes else ()):
        micro_batches = -(-rows * accumulation // size)
        setting = f"training: per_device_train_batch_size {size}, gradient_accumulation_steps {micro_batches}"
        yield Remedy(setting=setting, found=found[size])


def further_strategies(
    inputs: EstimateInputs, chosen: Sequence[Chosen[MemoryStrategy]], run: RunContext, rows: int, now: Footprint
) -> Iterator[Remedy]:
    """Try each strategy for the device that is not used yet, in its variants and with its default options."""
    used = {each.registered for each in chosen}
    for found in inputs.job.plugins.registry.defaults(MemoryStrategy):
        component = found.component
        if found in used or run.device.type not in component.devices:
            continue
        for options in (*component.variants, {}):
            further = Chosen(found, component.options(**options) if component.options else None)
            remedy = Remedy(setting=f"memory: {describe_strategy(further)}", lossy=component.lossy)
            try:
                taken = footprint(inputs, build_strategies([*chosen, further], run, inputs.job.where), [rows])[0]
                slower = taken.operations / now.operations - 1 if now.operations else 0.0
                yield attrs.evolve(remedy, found=taken, slower=slower)
            except SmoLoRAError as error:
                yield attrs.evolve(remedy, problem=str(error.problems[0]))
