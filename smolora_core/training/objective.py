"""Reduce a micro-batch to a loss sum and a weight, for any task and any loss.

The sum is that of the weighted elementwise losses, the weight their total weight. The loop divides the gradient of an
optimizer step by the weight of the whole step, over accumulation and ranks, so any split of the same rows gives the same
update.

A token loss never needs a language model's full logits: the model runs up to its head, and the head and the loss are
computed on supervised positions only, chunk by chunk. A classifier's logits are few and computed at once.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from smolora_core.batches.padding import IGNORED, row_indices
from smolora_core.components import Loss
from smolora_core.errors import PluginError
from smolora_core.model.head import Head, RunModel, find_head, logits_of, on_all_rows
from smolora_core.plugins import Registered
from smolora_core.plugins.loading import attributing_errors
from smolora_core.plugins.selection import Choices
from smolora_core.training.chunks import chunked_sum, linear_head_sum

_CHUNK_BYTES = 64 * 2**20
# Float32 logits that fit in a core's cache while autograd passes over them.
_CACHED_BYTES = 2 * 2**20
# Rows per product on a CPU: with fewer, the head is read from memory too often; with more, logits leave the last-level cache.
_CPU_ROWS = 256

Observe = Callable[[Tensor, Tensor], Tensor]


@attrs.frozen
class Measured:
    """A micro-batch's contribution to a step.

    Attributes:
        sum: the differentiable sum of the weighted elementwise losses, `[]`.
        weight: their total weight, a constant, `[]`.
        observed: inputs of the metrics, `[n, k]`; None if there are no metrics or a gradient is computed.
        rows: the row of the micro-batch each of them belongs to, `[n]`.
    """

    sum: Tensor
    weight: Tensor
    observed: Tensor | None = None
    rows: Tensor | None = None


class Objective(Protocol):
    """Computes a micro-batch's contribution to a step."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured: ...


def make_objective(
    chosen: Registered[Loss],
    loss: Callable[..., Any],
    model: nn.Module,
    chunk_bytes: int = _CHUNK_BYTES,
    *,
    predicts: str = "next-token",
    weight_field: str | None = None,
    observe: Observe | None = None,
    run_model: RunModel = on_all_rows,
) -> Objective:
    """Wrap a loss implementation according to its kind.

    Args:
        chosen: the loss and its origin.
        loss: its implementation.
        model: the model with its adapter attached, wrapped or not.
        chunk_bytes: the size of the logits that exist at a time.
        predicts: what the logits predict, as in the task's record.
        weight_field: the column of row weights.
        observe: extracts the inputs of the metrics from logits and targets.
        run_model: runs the model on a micro-batch; a loss of kind `model` runs it itself.
    """
    component = chosen.component
    if component.kind == "model":
        return _ModelObjective(chosen, loss)
    elementwise = _Elementwise(chosen, loss, component.columns, weight_field, observe)
    if component.kind == "prediction":
        return _PredictionObjective(elementwise, run_model)
    if predicts == "row":
        return _TokenObjective(elementwise, predicts, None, chunk_bytes, run_model)
    head = find_head(model)
    base = getattr(model, "get_base_model", lambda: model)()
    if head is None and getattr(base, "get_output_embeddings", lambda: None)() is not None:
        what = f"{type(base).__name__} post-processes its logits in an unknown way"
        warnings.warn(f"{what}; computing all of them, which takes memory", stacklevel=2)
    return _TokenObjective(elementwise, predicts, head, chunk_bytes, run_model)


def objective_of(choices: Choices, model: nn.Module, task: Any, weight_field: str | None, run_model: RunModel) -> Objective:
    """Build the objective of a run's components; `task` is the task's implementation."""
    return make_objective(
        choices.loss.registered,
        choices.loss.build(),
        model,
        predicts=choices.task.component.predicts,
        weight_field=weight_field,
        observe=getattr(task, "observe", None),
        run_model=run_model,
    )


@attrs.frozen
class _ModelObjective:
    chosen: Registered[Loss]
    loss: Callable[..., Any]

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        with attributing_errors(self.chosen.origin, "computing the loss"):
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


@attrs.define
class _Elementwise:
    """An elementwise loss that is checked against its contract, with its columns, row weights and metrics."""

    chosen: Registered[Loss]
    loss: Callable[..., Any]
    columns: tuple[str, ...]
    weight_field: str | None
    observe: Observe | None
    _checked_values: bool = False

    def inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Select the model's inputs."""
        return {name: each for name, each in batch.items() if name not in ("labels", self.weight_field, *self.columns)}

    def per_row(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Select the loss's columns and the weights, one value per row each, `[B]`."""
        columns = {name: batch[name] for name in self.columns}
        weights = batch[self.weight_field].float() if self.weight_field else None
        for name, column in columns.items():
            if column.dim() != 1:
                raise _wrong(self.chosen, f"needs one value per row in column {name!r}, got shape {list(column.shape)}")
        return columns, weights

    def compute(self, outputs: Tensor, targets: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Call the loss and check that it returns differentiable values in the targets' shape."""
        with attributing_errors(self.chosen.origin, "computing the loss"):
            losses = self.loss(outputs, targets, **columns)
        expected = list(targets.shape)
        if not isinstance(losses, Tensor):
            raise _wrong(self.chosen, f"returned {type(losses).__name__}, not a tensor of shape {expected}")
        if losses.shape != targets.shape:
            what = f"returned {_described(losses)} for targets {expected}"
            raise _wrong(self.chosen, what, "return one unreduced value per target")
        if torch.is_grad_enabled() and not losses.requires_grad:
            hint = f"compute it from the {'logits' if targets.dim() < outputs.dim() else 'predictions'}, without detach or item"
            raise _wrong(self.chosen, f"returned {_described(losses)} without a gradient", hint)
        if not self._checked_values:
            # Checked once: it forces a device sync.
            self._checked_values = True
            self._require_finite(losses, outputs)
        return losses

    def _require_finite(self, losses: Tensor, outputs: Tensor) -> None:
        bad = losses.detach()[~torch.isfinite(losses.detach())]
        if len(bad) and bool(torch.isfinite(outputs.detach()).all()):
            which = "logits" if outputs.dim() > losses.dim() else "predictions"
            what = f"returned {_described(losses)} with {len(bad)} non-finite values for finite {which}"
            raise _wrong(self.chosen, f"{what}, the first is {bad[0].item()}")


@attrs.frozen
class _TokenObjective:
    elementwise: _Elementwise
    predicts: str
    head: Head | None
    chunk_bytes: int
    run_model: RunModel

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        elementwise, head = self.elementwise, self.head
        labels = batch["labels"]
        if labels.is_floating_point() or labels.dim() > 2:
            what = f"takes class labels, but the labels are {_described(labels)}"
            raise _wrong(elementwise.chosen, what, "choose a loss of kind prediction")
        targets = _next_tokens(labels) if self.predicts == "next-token" else labels
        supervised = targets != IGNORED
        rows = row_indices(batch, supervised.nonzero())
        per_row, weights = elementwise.per_row(batch)
        columns = {name: each[rows] for name, each in per_row.items()}
        weights = None if weights is None else weights[rows]
        inputs = elementwise.inputs(batch)
        with head.deferred() if head else nullcontext(logits_of) as compute:
            states = self.run_model(compute, model, inputs)
        if states.shape[:-1] != targets.shape:
            what = f"{'hidden states' if head else 'logits'} {list(states.shape)} do not match labels {list(targets.shape)}"
            raise PluginError(what, hint=f"the task declares predicts={self.predicts!r}")
        targets, states = targets[supervised], states[supervised]
        observe, observed = None if torch.is_grad_enabled() else elementwise.observe, []

        def loss_of(logits: Tensor, start: int) -> Tensor:
            chunk = slice(start, start + len(logits))
            losses = elementwise.compute(logits, targets[chunk], {name: each[chunk] for name, each in columns.items()})
            if observe is not None:
                observed.append(observe(logits, targets[chunk]))
            return (losses if weights is None else losses * weights[chunk]).sum()

        if len(targets) == 0:
            # Nothing is supervised, but every rank and parameter must take part in the backward pass.
            return Measured(self._project(states).sum(), states.new_zeros((), dtype=torch.float32))
        total = self._sum(states, loss_of)
        weight = total.new_full((), len(targets), dtype=torch.float32) if weights is None else weights.sum()
        return Measured(total, weight, torch.cat(observed) if observed else None, rows if observed else None)

    def _project(self, states: Tensor) -> Tensor:
        return self.head.logits(states) if self.head else states.float()

    def _sum(self, states: Tensor, loss_of: Callable[[Tensor, int], Tensor]) -> Tensor:
        head, width = self.head, self.head.width if self.head else states.shape[-1]
        autocast = torch.is_autocast_enabled(states.device.type)
        if (
            head
            and head.is_frozen_linear
            and torch.is_grad_enabled()
            and states.dtype == head.module.weight.dtype
            and not autocast
        ):
            rows = max(1, self.chunk_bytes // (states.element_size() * width))
            cached = rows
            if states.device.type == "cpu":
                rows, cached = min(rows, _CPU_ROWS), max(1, _CACHED_BYTES // (4 * width))
            loss_sum = lambda logits, start: loss_of(head.after(logits), start)  # noqa: E731
            return linear_head_sum(states, head.module.weight, head.module.bias, loss_sum, rows, cached)
        return chunked_sum(
            states,
            max(1, self.chunk_bytes // (4 * width)),
            lambda part, start: loss_of(self._project(part), start),
            frozen_head=head is not None and not head.is_trained,
        )


@attrs.frozen
class _PredictionObjective:
    elementwise: _Elementwise
    run_model: RunModel

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        elementwise, targets = self.elementwise, batch["labels"].float()
        outputs = self.run_model(logits_of, model, elementwise.inputs(batch)).float()
        if outputs.numel() != targets.numel() or outputs.shape[0] != targets.shape[0]:
            what = f"got predictions {list(outputs.shape)} for labels {_described(batch['labels'])}"
            raise _wrong(elementwise.chosen, what, "for classes, choose a loss of kind token")
        outputs = outputs.reshape(targets.shape)
        per_row, weights = elementwise.per_row(batch)
        # Row values must broadcast along the first dimension: `[B, 1]` for targets `[B, K]`.
        per_row_shape = (-1, *[1] * (targets.dim() - 1))
        losses = elementwise.compute(outputs, targets, {name: each.reshape(per_row_shape) for name, each in per_row.items()})
        observed, rows = None, None
        if elementwise.observe is not None and not torch.is_grad_enabled():
            observed, rows = elementwise.observe(outputs, targets), torch.arange(len(targets), device=targets.device)
        if weights is None:
            return Measured(losses.sum(), losses.new_full((), losses.numel()), observed, rows)
        weighted = weights.reshape(per_row_shape).expand_as(losses)
        return Measured((losses * weighted).sum(), weighted.sum(), observed, rows)


def _next_tokens(labels: Tensor) -> Tensor:
    """Shift the labels: position t predicts token t + 1, the last position nothing."""
    targets = torch.full_like(labels, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    return targets


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _wrong(chosen: Registered[Loss], what: str, hint: str = "") -> PluginError:
    return PluginError(what, where=f"loss {chosen.component.name!r} ({chosen.origin})", hint=hint)
