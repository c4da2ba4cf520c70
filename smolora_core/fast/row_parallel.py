"""Decide whether threads may run a model on separate rows of a micro-batch; the model is tried first."""

from typing import Any

import attrs
import torch
from torch import nn

from smolora_core.fast.threads import RowThreads, has_foreign_hooks
from smolora_core.lora.dropout import RowSeeds, row_dropout, seeded_here
from smolora_core.model.device import in_mode
from smolora_core.model.head import RunModel, logits_of, on_all_rows, probe_inputs
from smolora_core.plugins.loading import describe

MIN_ELEMENTS = 2**17
"""Least number of elements in the hidden states of a thread's rows; with fewer, Python's lock costs more than threads gain."""

# Rotary embeddings that depend on the longest row of a batch.
_BATCH_DEPENDENT_ROPE = ("dynamic", "longrope")


@attrs.frozen
class RowParallel:
    """How a model is run on the rows of a micro-batch, and the problem that prevents threads from sharing them, if any."""

    run: RunModel = on_all_rows
    problem: str = ""


def choose_row_parallel(model: nn.Module, min_elements: int = MIN_ELEMENTS) -> RowParallel:
    """Use threads if a model, with its adapter and fused layers, allows several at a time."""
    threads = torch.get_num_threads()
    if threads == 1 or next(model.parameters()).device.type != "cpu":
        return RowParallel()
    if problem := _problem(model):
        return RowParallel(problem=problem)
    return RowParallel(RowThreads(threads, min_elements))


def _problem(model: Any) -> str:
    base = getattr(model, "get_base_model", lambda: model)()
    if getattr(base, "is_activation_checkpointing", False):
        return "recomputed layers draw random numbers for all rows at once"
    if any(getattr(module, "rope_type", None) in _BATCH_DEPENDENT_ROPE for module in model.modules()):
        return "its rotary embedding depends on the longest row"
    if has_foreign_hooks(model):
        return "its layers have hooks"
    before = torch.get_rng_state()
    try:
        inputs = probe_inputs(model)
        with (
            in_mode(model, training=True),
            torch.no_grad(),
            row_dropout(model),
            seeded_here(RowSeeds(range(len(inputs["input_ids"])))),
        ):
            logits_of(model, inputs)
        return "" if torch.equal(torch.get_rng_state(), before) else "its layers draw random numbers for all rows at once"
    except Exception as error:
        return f"a test batch fails ({describe(error)})"
    finally:
        torch.set_rng_state(before)
