"""Choose how sequences of different lengths are batched: without padding where the model is verified to isolate them.

A model that ignores sequence boundaries would let one sequence attend to another, and the loss would fall as if nothing were
wrong. So before training a few tokens are sent through the model, once with one of the sequences changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from smolora_core.batches.padding import concatenate, pad
from smolora_core.errors import first_line
from smolora_core.fast.attention import use_document_attention
from smolora_core.model.device import in_mode

Collate = Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

# Allowed errors relative to the largest logit: padding changes the order of sums in every layer.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
_LOW_PRECISION_TOLERANCE = 0.1
_LENGTHS = (5, 9, 3)


@attrs.frozen
class Batching:
    """How micro-batches are made.

    Attributes:
        name: `padding-free`, `grouped` (sequences of similar length are padded together) or `padded`.
        reason: why it was chosen, as the run reports it.
        collate: makes a padding-free micro-batch; None where the task's own `collate` pads.
        undo: restores the model's attention.
    """

    name: str
    reason: str
    collate: Collate | None = None
    undo: Callable[[], None] = lambda: None


def choose_batching(wanted: str, model: nn.Module, task: Any, loss_kind: str) -> Batching:
    """Choose how micro-batches are made, for a model with its adapter, on its device.

    Padding-free batches need a task with a method `concatenate`. A loss of kind `model` expects rectangular ones.
    """
    if wanted in ("grouped", "padded"):
        return Batching(wanted, "as configured")
    collate = getattr(task, "concatenate", None)
    if collate is None:
        return Batching("grouped", "the task requires padding")
    if loss_kind == "model":
        return Batching("grouped", "the loss takes whole batches")
    base: Any = getattr(model, "get_base_model", lambda: model)()
    try:
        undo = use_document_attention(base)
    except (AttributeError, ValueError) as error:
        return Batching("grouped", f"the model does not support padding-free batches: {error}")
    if problem := _isolation_problem(model):
        undo()
        return Batching("grouped", f"the model does not isolate sequences without padding: {problem}")
    return Batching("padding-free", "verified: the model isolates sequences", collate, undo)


def _isolation_problem(model: nn.Module) -> str | None:
    """Send three sequences through a model end to end, and explain how it fails to isolate them; None if it does not fail."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    vocabulary = min(64, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    rows = [{"input_ids": torch.randint(vocabulary, (length,), generator=generator).tolist()} for length in _LENGTHS]
    changed_row = {"input_ids": [(token + 1) % vocabulary for token in rows[1]["input_ids"]]}
    try:
        with in_mode(model, training=False), torch.no_grad():
            packed = _logits(model, concatenate(rows), device)
            changed = _logits(model, concatenate([rows[0], changed_row, rows[2]]), device)
            padded = _logits(model, pad(rows, 0), device)
    except Exception as error:
        return f"a test batch fails ({type(error).__name__}: {first_line(error)})"
    if packed.shape[:2] != (1, sum(_LENGTHS)):
        return "its output has the wrong shape"
    packed, changed = packed[0].split(_LENGTHS), changed[0].split(_LENGTHS)
    if torch.equal(packed[1], changed[1]):
        return "changing a sequence does not change its output"
    for index in (0, 2):
        # Same numbers in the same order: only rounding may differ.
        if _relative_error(changed[index], packed[index]) > torch.finfo(padded.dtype).eps:
            return f"changing sequence 2 changes sequence {index + 1}"
    for index, length in enumerate(_LENGTHS):
        if _relative_error(packed[index], padded[index, :length]) > _TOLERANCE.get(padded.dtype, _LOW_PRECISION_TOLERANCE):
            return f"sequence {index + 1} differs from the same sequence with padding"
    return None


def _logits(model: nn.Module, batch: Mapping[str, Any], device: torch.device) -> Any:
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    return model(**moved, use_cache=False).logits


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())
