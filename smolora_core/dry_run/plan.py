"""What a run would take of the device's memory, and what would make it fit: found out before any weight is loaded."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import attrs

from smolora_core.batches.collator import Collator
from smolora_core.components import TaskSetup
from smolora_core.config import Resolved
from smolora_core.config.secrets import Mask
from smolora_core.data.pipeline import Parts
from smolora_core.data.prepare import recipe_for, set_template
from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.splits import open_splits
from smolora_core.dry_run.footprint import Footprint, Stand, footprint
from smolora_core.dry_run.remedies import Remedy, further_strategies, in_order, smaller_micro_batches
from smolora_core.model.device import free_memory, pick_device, resident_memory
from smolora_core.model.load import load_tokenizer, padding_id, precision_of
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import default_strategies
from smolora_core.run.context import Run
from smolora_core.run.folder import locate
from smolora_core.run.job import Settled, settle
from smolora_core.training.memory import Strategies, build_strategies, spelt

_READ = 1000
_ROOM = 0.8


@attrs.frozen(kw_only=True)
class Plan:
    """What would run, and what that takes.

    Attributes:
        settled: the config with nothing left to be inferred.
        device: that the run computes on.
        dtype: of the base, and why.
        memory: strategies with their options.
        rows: in a micro-batch.
        accumulation: micro-batches in an optimizer step.
        longest: tokens of the longest row.
        looked_at: rows that were read to find it; None where these are all.
        found: the memory.
        free: bytes; None where nobody says.
        remedies: what costs least first.
    """

    settled: Settled
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


def make_plan(resolved: Resolved, plugins: PluginManager, *, free: int | None = None, remedies: bool = False) -> Plan:
    """Rehearse a run.

    Args:
        resolved: the config and where its values stand.
        plugins: the loaded plugins.
        free: bytes to plan for; None for what the device has.
        remedies: whether ways to take less memory are tried even where the run fits.

    Raises:
        SmoLoRAError: as for a run, as far as it goes without weights; or its step cannot be rehearsed.
    """
    settled = settle(resolved, plugins)
    resolved, config = settled.resolved, settled.resolved.config
    device = pick_device(config.model.device, resolved.where("model.device"))
    run = Run(config, locate(resolved), device, plugins, lambda *_, **__: None, Mask.of(config))
    precision = precision_of(config.model, device, settled.base_config)
    rows, seen, collator, changes = _rows(settled)
    stand = Stand(
        config=config,
        where=resolved.where,
        choices=settled.choices,
        registry=plugins.registry,
        base_config=settled.base_config,
        changes=changes,
        dtype=precision.dtype,
        device=device,
        collator=collator,
        rows=rows,
        evaluates=config.data.eval is not None,
        program=resident_memory(),
    )
    chosen = settled.choices.memory
    chosen = default_strategies(plugins.registry, device.type) if chosen is None else chosen
    strategies = build_strategies(chosen, run, resolved.where)
    free = free_memory(device) if free is None else free
    size, accumulation, found = _micro_batch(stand, strategies, free)
    plan = Plan(
        settled=settled,
        device=str(device),
        dtype=f"{str(precision.dtype).removeprefix('torch.')} ({precision.reason})",
        memory=tuple(map(spelt, chosen)),
        rows=size,
        accumulation=accumulation,
        longest=len(rows[0]["input_ids"]),
        looked_at=None if seen < _READ else seen,
        found=found,
        free=free,
    )
    if remedies or plan.fits is False:
        smaller = smaller_micro_batches(stand, strategies, size, accumulation, free)
        tried = [*smaller, *further_strategies(stand, chosen, run, size, found)]
        plan = attrs.evolve(plan, remedies=in_order(tried, found))
    return plan


def _rows(settled: Settled) -> tuple[list[dict[str, Any]], int, Collator, dict[str, Any]]:
    """Encode the first rows, put the longest first, and ask the task what they want of the model."""
    resolved, choices = settled.resolved, settled.choices
    config = resolved.config
    tokenizer = load_tokenizer(config.model, resolved.where("model.path"))
    set_template(tokenizer, resolved)
    recipe = recipe_for(resolved, choices, tokenizer, settled.vocab_size, "data.train")
    splits = open_splits(config.data, resolved.where("data.train"), resolved.where("data.eval"))

    def read(on_bad: OnBad | None) -> Iterator[Located]:
        return islice(splits.train(on_bad), _READ)

    parts = Parts(read, recipe)
    rows = [row for part in parts if part.table is not None for row in part.table.to_pylist()]
    collator = Collator(choices.task.build(), padding_id(tokenizer), config.seed)
    look = getattr(collator.task, "configure", None)
    setup = TaskSetup(
        train=rows,
        held_out=None,
        tokenizer=tokenizer,
        pad_token_id=collator.pad_token_id,
        model_config=settled.base_config,
        label_field=config.data.label_field,
    )
    changes = dict(look(setup)) if look else {}
    rows.sort(key=lambda row: sum(len(each) for each in row.values() if isinstance(each, list)), reverse=True)
    return rows, parts.ledger.read, collator, changes


def _micro_batch(stand: Stand, strategies: Strategies, free: int | None) -> tuple[int, int, Footprint]:
    """Say how many rows are in a micro-batch, and how many of these in a step; `auto` takes what fits well."""
    training = stand.config.training
    wanted = training.per_device_train_batch_size
    if training.max_tokens_per_batch is not None:
        wanted = max(1, training.max_tokens_per_batch // len(stand.rows[0]["input_ids"]))
    if wanted != "auto":
        return wanted, training.gradient_accumulation_steps, footprint(stand, strategies, [wanted])[0]
    powers = [2**power for power in range(training.effective_batch_size.bit_length())]
    found = footprint(stand, strategies, powers)
    fitting = [pair for pair in zip(powers, found, strict=True) if free is None or pair[1].peak <= _ROOM * free]
    size, its = max(fitting, default=(powers[0], found[0]), key=lambda pair: pair[0])
    return size, -(-training.effective_batch_size // size), its
