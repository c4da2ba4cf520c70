"""How rows of different lengths become micro-batches: without padding where the model keeps them apart, which is tried out.

A model that does not honour the borders between sequences would let one look into another, and nothing would say so: the loss
would fall all the same. So before training a few tokens are sent through the model, and one sequence is changed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from smolora_core.batches.padding import concatenate, pad
from smolora_core.fast.attention import use_document_attention
from smolora_core.model.device import in_mode

Collate = Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

# Parts of the largest logit that padding, which changes the order of sums layer after layer, may change.
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-9}
_ROUNDING_OF_HALF = 0.1
_LENGTHS = (5, 9, 3)


@attrs.frozen
class Batching:
    """How micro-batches are made.

    Attributes:
        name: `padding-free`, `grouped` (rows of similar length are padded together) or `padded`.
        reason: why, for a person.
        collate: makes a padding-free micro-batch; None where the task's own `collate` pads.
        undo: gives the model the attention back that it had.
    """

    name: str
    reason: str
    collate: Collate | None = None
    undo: Callable[[], None] = lambda: None


def choose_batching(wanted: str, model: nn.Module, task: Any, loss_kind: str) -> Batching:
    """Choose how micro-batches are made.

    Args:
        wanted: `auto`, `padding-free`, `grouped` or `padded`.
        model: with its adapter, on its device.
        task: the implementation; one that can do without padding has a method `concatenate`.
        loss_kind: of the loss; one of kind `model` gets micro-batches itself, and knows rectangular ones only.
    """
    if wanted in ("grouped", "padded"):
        return Batching(wanted, "as configured")
    concatenated = getattr(task, "concatenate", None)
    if concatenated is None:
        return Batching("grouped", "the task pads its rows")
    if loss_kind == "model":
        return Batching("grouped", "the loss is handed whole batches")
    base: Any = getattr(model, "get_base_model", lambda: model)()
    try:
        undo = use_document_attention(base)
    except (AttributeError, ValueError) as error:
        return Batching("grouped", f"the model cannot keep rows apart without padding ({error})")
    if problem := isolation_problem(model):
        undo()
        return Batching("grouped", f"the model does not keep rows apart without padding: {problem}")
    return Batching("padding-free", "tried: a changed row changes no other", concatenated, undo)


def isolation_problem(model: nn.Module) -> str | None:
    """Send three sequences through a model end to end; say what is wrong, if something is."""
    some = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    known = min(64, model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    rows = [{"input_ids": torch.randint(known, (length,), generator=generator).tolist()} for length in _LENGTHS]
    middle = {"input_ids": [(token + 1) % known for token in rows[1]["input_ids"]]}
    try:
        with in_mode(model, training=False), torch.no_grad():
            packed, changed = (_logits(model, concatenate(each), some) for each in (rows, [rows[0], middle, rows[2]]))
            padded = _logits(model, pad(rows, 0), some)
    except Exception as error:
        return f"it refuses them ({type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''})"
    if packed.shape[:2] != (1, sum(_LENGTHS)):
        return "its output is of another shape"
    packed, changed = packed[0].split(_LENGTHS), changed[0].split(_LENGTHS)
    if torch.equal(packed[1], changed[1]):
        return "the changed row has not changed"
    for at in (0, 2):
        # The same numbers in the same order.
        if _apart(changed[at], packed[at]) > torch.finfo(padded.dtype).eps:
            return f"changing the second row changes the {'first' if at == 0 else 'third'}"
    for at, length in enumerate(_LENGTHS):
        if _apart(packed[at], padded[at, :length]) > _ROUNDING.get(padded.dtype, _ROUNDING_OF_HALF):
            return f"row {at + 1} is not what it is with padding"
    return None


def _logits(model: nn.Module, batch: Mapping[str, Any], some: Tensor) -> Tensor:
    moved = {name: each.to(some.device) if isinstance(each, Tensor) else each for name, each in batch.items()}
    found: Tensor = model(**moved, use_cache=False).logits
    return found


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())
