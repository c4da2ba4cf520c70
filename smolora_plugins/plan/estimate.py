"""A plan: the memory that a run would take, and what would make it fit, before any weight is loaded."""

import attrs

from smolora_core import RunContext
from smolora_core.batches import Collator, padding_id
from smolora_core.model import free_memory, pick_device, precision_of, resident_memory
from smolora_core.plugins import default_strategies
from smolora_core.run import Checked, Job, encode_first, resolve_job
from smolora_core.training import Strategies, build_strategies, describe_strategy
from smolora_plugins.plan.footprint import EstimateInputs, Footprint, footprint
from smolora_plugins.plan.remedies import Remedy, further_strategies, in_order, smaller_micro_batches

_READ = 1000
# The share of free memory that `auto` fills.
_FILLED = 0.8


@attrs.frozen(kw_only=True)
class Plan:
    """What would run, and the memory it would take.

    Attributes:
        job: the job that was planned.
        device: the device that the run would compute on.
        dtype: the base model's number format, and why.
        memory: the memory strategies with their options.
        rows: rows in a micro-batch.
        accumulation: micro-batches in an optimizer step.
        longest: tokens in the longest row.
        looked_at: how many rows were read to find the longest; None if that is all of them.
        found: the estimated memory.
        free: free bytes on the device, or None if unknown.
        remedies: ways to take less, cheapest first.
    """

    job: Job
    device: str
    dtype: str
    memory: tuple[str, ...]
    rows: int
    accumulation: int
    longest: int
    looked_at: int | None
    found: Footprint
    free: int | None
    remedies: tuple[Remedy, ...] = ()

    @property
    def fits(self) -> bool | None:
        return None if self.free is None else self.found.peak <= self.free


def make_plan(checked: Checked, *, free: int | None = None, remedies: bool = False) -> Plan:
    """Estimate the memory of a run.

    Args:
        checked: the config, as `check_run` returns it.
        free: bytes to plan for, instead of the device's free memory.
        remedies: whether to look for ways to take less memory even if the run fits.

    Raises:
        SmoLoRAError: a run would fail in the same way, or its step cannot run without data.
    """
    job = resolve_job(checked)
    config, choices, registry = job.config, job.choices, job.plugins.registry
    device = pick_device(config.model.device, job.where("model.device"))
    run = RunContext(config=config, folder=job.folder, device=device, plugins=job.plugins, emit=_ignore)
    precision = precision_of(config.model, device, job.base_config)
    first = encode_first(job, _READ)
    rows = list(first)
    collator = Collator(first.task, padding_id(first.tokenizer), config.seed)
    changes = collator.configure(rows, None, first.tokenizer, job.base_config, config.data)
    rows.sort(key=lambda row: sum(len(each) for each in row.values() if isinstance(each, list)), reverse=True)
    inputs = EstimateInputs(
        job=job,
        changes=changes,
        dtype=precision.dtype,
        device=device,
        collator=collator,
        rows=rows,
        program=resident_memory(),
    )
    chosen = default_strategies(registry, device.type) if choices.memory is None else choices.memory
    strategies = build_strategies(chosen, run, job.where)
    free = free_memory(device) if free is None else free
    size, accumulation, found = _micro_batch(inputs, strategies, free)
    seen = first.account()["ledger"].read
    plan = Plan(
        job=job,
        device=str(device),
        dtype=f"{str(precision.dtype).removeprefix('torch.')} ({precision.reason})",
        memory=tuple(map(describe_strategy, chosen)),
        rows=size,
        accumulation=accumulation,
        longest=len(rows[0]["input_ids"]),
        looked_at=None if seen < _READ else seen,
        found=found,
        free=free,
    )
    if remedies or plan.fits is False:
        smaller = smaller_micro_batches(inputs, strategies, size, accumulation, free)
        tried = [*smaller, *further_strategies(inputs, chosen, run, size, found)]
        plan = attrs.evolve(plan, remedies=in_order(tried, found))
    return plan


def _ignore(kind: str, **values: object) -> None:
    """A plan has no events."""


def _micro_batch(inputs: EstimateInputs, strategies: Strategies, free: int | None) -> tuple[int, int, Footprint]:
    """Choose the rows in a micro-batch and the micro-batches in a step; `auto` takes the largest that fits well."""
    training = inputs.job.config.training
    wanted = training.per_device_train_batch_size
    if training.max_tokens_per_batch is not None:
        wanted = max(1, training.max_tokens_per_batch // len(inputs.rows[0]["input_ids"]))
    effective = training.units_per_step()
    if wanted != "auto":
        # With a budget of tokens, a step has so many micro-batches.
        times = effective if training.max_tokens_per_batch is not None else -(-effective // wanted)
        return wanted, times, footprint(inputs, strategies, [wanted])[0]
    powers = [2**power for power in range(effective.bit_length())]
    found = footprint(inputs, strategies, powers)
    fitting = [pair for pair in zip(powers, found, strict=True) if free is None or pair[1].peak <= _FILLED * free]
    size, its = max(fitting, default=(powers[0], found[0]), key=lambda pair: pair[0])
    return size, -(-effective // size), its
