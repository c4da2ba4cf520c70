"""From a micro-batch to a sum and a weight, whatever the loss.

Every objective computes `(sum, weight)`: the sum of weighted elementwise losses and the total weight. The trainer divides
the gradient of an optimizer step by the weight of that whole step, over accumulation and ranks, so any split of the same
rows gives the same update.

A token loss never meets full logits. The model runs up to its head, only supervised positions go on, and the head and the
loss are computed chunk by chunk.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from smolora_core.components import Loss
from smolora_core.data.batches import IGNORED
from smolora_core.errors import PluginError
from smolora_core.plugins import Registered
from smolora_core.plugins.loading import noting
from smolora_core.training.chunks import chunked_sum
from smolora_core.training.head import Head, find_head

__all__ = ["Measured", "Objective", "make_objective"]

_CHUNK_BYTES = 32 * 2**20


@attrs.frozen
class Measured:
    """What a micro-batch contributes: differentiable sum and constant weight, both 0-dimensional."""

    sum: Tensor
    weight: Tensor


class Objective(Protocol):
    """Computes what a micro-batch contributes."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured: ...


def make_objective(
    chosen: Registered, loss: Callable[..., Any], model: nn.Module, chunk_bytes: int = _CHUNK_BYTES
) -> Objective:
    """Wrap a loss implementation by its kind, for a model with its adapter attached.

    Args:
        chosen: the loss and its origin.
        loss: its implementation.
        model: what it will be computed with, wrapped or not.
        chunk_bytes: of the float32 logits that exist at a time.

    Raises:
        PluginError: nothing computes losses of this kind yet.
    """
    component = chosen.component
    assert isinstance(component, Loss)
    if component.kind == "model":
        return _ModelObjective(chosen, loss)
    if component.kind == "token":
        head = find_head(model)
        if head is None:
            name = type(getattr(model, "get_base_model", lambda: model)()).__name__
            message = f"it is not known what {name} does to its logits, so all of them are computed, which takes memory"
            warnings.warn(message, stacklevel=2)
        return _TokenObjective(chosen, loss, head, chunk_bytes)
    raise PluginError(
        f"loss {component.name!r} ({chosen.origin}) computes from predictions; causal-lm has none", hint="use a token loss"
    )


@attrs.frozen
class _ModelObjective:
    chosen: Registered
    loss: Callable[..., Any]

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        with noting(self.chosen.origin, "computing the loss"):
            result = self.loss(model, batch)
        if (
            not isinstance(result, tuple)
            or len(result) != 2
            or not all(isinstance(part, Tensor) and part.dim() == 0 for part in result)
        ):
            raise _wrong(self.chosen, "must return two 0-dimensional tensors, the sum and the weight")
        if torch.is_grad_enabled() and not result[0].requires_grad:
            raise _wrong(self.chosen, "returned a sum without a gradient", "compute it from the model, without detach or item")
        return Measured(result[0], result[1].detach())


@attrs.frozen
class _TokenObjective:
    chosen: Registered
    loss: Callable[..., Any]
    head: Head | None
    chunk_bytes: int

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        component = self.chosen.component
        assert isinstance(component, Loss)
        # Position t predicts token t + 1; the last one predicts nothing.
        targets = torch.full_like(batch["labels"], IGNORED)
        targets[:, :-1] = batch["labels"][:, 1:]
        supervised = targets != IGNORED
        inputs = {name: value for name, value in batch.items() if name not in ("labels", *component.columns)}
        columns = {name: self._per_token(name, batch[name], supervised) for name in component.columns}
        head = self.head
        states = head.hidden(model, inputs) if head else model(**inputs, use_cache=False).logits
        logits_of, width = (head.logits, head.width) if head else (_float, states.shape[-1])
        targets, states = targets[supervised], states[supervised]

        def loss_sum(part: Tensor, start: int) -> Tensor:
            rows = slice(start, start + len(part))
            return self._losses(logits_of(part), targets[rows], {name: each[rows] for name, each in columns.items()}).sum()

        if len(targets) == 0:
            # Nothing to learn, but every rank and every parameter takes part in the backward pass.
            total = logits_of(states).sum()
        else:
            frozen = head is not None and not head.trained
            total = chunked_sum(states, max(1, self.chunk_bytes // (4 * width)), loss_sum, frozen_head=frozen)
        return Measured(total, total.new_full((), len(targets), dtype=torch.float32))

    def _per_token(self, name: str, column: Tensor, supervised: Tensor) -> Tensor:
        """Spread a value per row `[B]` over the supervised tokens of the row `[n]`."""
        if column.dim() != 1:
            raise _wrong(self.chosen, f"needs one value a row in column {name!r}, got shape {list(column.shape)}")
        return column[:, None].expand_as(supervised)[supervised]

    def _losses(self, logits: Tensor, targets: Tensor, columns: dict[str, Tensor]) -> Tensor:
        with noting(self.chosen.origin, "computing the loss"):
            losses = self.loss(logits, targets, **columns)
        if not isinstance(losses, Tensor):
            raise _wrong(self.chosen, f"returned {type(losses).__name__}, not a tensor of shape {list(targets.shape)}")
        if losses.shape != targets.shape:
            raise _wrong(
                self.chosen, f"returned shape {list(losses.shape)} for targets {list(targets.shape)}", "return it unreduced"
            )
        if torch.is_grad_enabled() and not losses.requires_grad:
            raise _wrong(
                self.chosen, "returned a tensor without a gradient", "compute it from the logits, without detach or item"
            )
        return losses


def _float(logits: Tensor) -> Tensor:
    return logits.float()


def _wrong(chosen: Registered, what: str, hint: str = "") -> PluginError:
    return PluginError(what, where=f"loss {chosen.component.name!r} ({chosen.origin})", hint=hint)
