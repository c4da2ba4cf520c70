"""Whether the rows of a micro-batch are shared out among threads, which is tried before it is trusted."""

from typing import Any

import attrs
import torch
from torch import nn

from smolora_core.fast.lora_linear import drawing
from smolora_core.fast.threads import RowThreads, is_watched
from smolora_core.model.device import in_mode
from smolora_core.model.head import RunModel, few_tokens, logits_of, on_all_rows
from smolora_core.plugins.loading import describe

LEAST = 2**17
"""Numbers in the hidden states of a thread's rows: with fewer, Python is what costs, of which one thread runs at a time."""

# Rotary embeddings that are changed by the longest row of a batch.
_BY_BATCH = ("dynamic", "longrope")


@attrs.frozen
class RowParallel:
    """How a model is run on the rows of a micro-batch.

    Attributes:
        run: runs it.
        problem: why threads do not each run it on rows of their own, for a person; empty where one thread computes alone.
    """

    run: RunModel = on_all_rows
    problem: str = ""


def choose_row_parallel(model: nn.Module, least: int = LEAST) -> RowParallel:
    """Find out whether several threads may run a model at a time.

    Args:
        model: with its adapter, on its device, with its fast layers.
        least: numbers in the hidden states of the rows that a thread is given.
    """
    threads = torch.get_num_threads()
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    # Data parallelism knows of one way forward and one way back.
    if threads == 1 or several or next(model.parameters()).device.type != "cpu":
        return RowParallel()
    if problem := _problem(model):
        return RowParallel(problem=problem)
    return RowParallel(RowThreads(threads, least))


def _problem(model: Any) -> str:
    base = getattr(model, "get_base_model", lambda: model)()
    if getattr(base, "is_activation_checkpointing", False):
        return "layers that are computed again draw for all rows at once"
    if any(getattr(each, "rope_type", None) in _BY_BATCH for each in model.modules()):
        return "positions are encoded by the longest row"
    if is_watched(model):
        return "hooks look at its layers"
    before = torch.get_rng_state()
    try:
        with in_mode(model, training=True), torch.no_grad(), drawing(torch.Generator()):
            logits_of(model, few_tokens(model))
        return "" if torch.equal(torch.get_rng_state(), before) else "layers draw random numbers, for all rows at once"
    except Exception as error:
        return f"it refuses a few tokens ({describe(error)})"
    finally:
        torch.set_rng_state(before)
