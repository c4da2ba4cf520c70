"""From a micro-batch to a sum and a weight, whatever the loss.

Every objective computes `(sum, weight)`: the sum of weighted elementwise losses and the total weight. The trainer divides
the gradient of an optimizer step by the weight of that whole step, over accumulation and ranks, so any split of the same
rows gives the same update.

A token loss never meets full logits. The model runs up to its head, only supervised positions go on, and the head and the
loss are computed chunk by chunk; with a frozen head each chunk's gradient is formed at once and its logits are freed before
the next chunk.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor, nn

from smolora_core.components import Loss
from smolora_core.data.batches import IGNORED
from smolora_core.errors import PluginError
from smolora_core.plugins import Registered
from smolora_core.plugins.loading import noting

__all__ = ["Measured", "Objective", "head_can_wait", "make_objective"]

_CHUNK_BYTES = 32 * 2**20


@attrs.frozen
class Measured:
    """What a micro-batch contributes: differentiable sum and constant weight, both 0-dimensional."""

    sum: Tensor
    weight: Tensor


class Objective(Protocol):
    """Computes what a micro-batch contributes."""

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured: ...


def make_objective(chosen: Registered, loss: Callable[..., Any], model: nn.Module) -> Objective:
    """Wrap a loss implementation by its kind, for a model with its adapter attached.

    Raises:
        PluginError: nothing computes losses of this kind yet.
    """
    component = chosen.component
    assert isinstance(component, Loss)
    if component.kind == "token":
        return _TokenObjective(chosen, loss, component.columns, head_can_wait(model))
    if component.kind == "model":
        return _ModelObjective(chosen, loss)
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
        return Measured(result[0], result[1].detach())


@attrs.frozen
class _TokenObjective:
    chosen: Registered
    loss: Callable[..., Any]
    columns: tuple[str, ...]
    defers: bool

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        # Position t predicts token t + 1; the last one predicts nothing.
        targets = torch.full_like(batch["labels"], IGNORED)
        targets[:, :-1] = batch["labels"][:, 1:]
        supervised = targets != IGNORED
        inputs = {name: value for name, value in batch.items() if name not in ("labels", *self.columns)}
        if self.defers:
            with _deferred_head(model) as project:
                hidden = model(**inputs, logits_to_keep=supervised, use_cache=False).logits
        else:
            hidden, project = model(**inputs, use_cache=False).logits[supervised], nn.Identity()
        kept = targets[supervised]
        columns = {name: _per_token(batch[name], supervised) for name in self.columns}
        total = hidden.sum() * 0.0 if kept.numel() == 0 else self._chunked(hidden, kept, columns, project, model)
        return Measured(total, torch.tensor(float(kept.numel()), device=kept.device))

    def _chunked(
        self, hidden: Tensor, targets: Tensor, columns: dict[str, Tensor], project: Callable[[Tensor], Tensor], model: nn.Module
    ) -> Tensor:
        head = _head(model)
        rows = max(1, _CHUNK_BYTES // (4 * head.weight.shape[0]))

        def loss_sum(part: Tensor, start: int) -> Tensor:
            end = start + len(part)
            arguments = {name: column[start:end] for name, column in columns.items()}
            return self._checked(project(part).float(), targets[start:end], arguments).sum()

        if not torch.is_grad_enabled() or any(parameter.requires_grad for parameter in head.parameters()):
            return torch.stack([loss_sum(part, i * rows) for i, part in enumerate(hidden.split(rows))]).sum()
        return _FrozenHeadSum.apply(hidden, rows, loss_sum)  # type: ignore[no-untyped-call,no-any-return]

    def _checked(self, logits: Tensor, targets: Tensor, columns: dict[str, Tensor]) -> Tensor:
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


class _FrozenHeadSum(torch.autograd.Function):
    """Sum a loss over chunks of hidden states, keeping d(hidden) instead of the graph: one chunk's logits exist at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, rows: int, loss_sum: Callable[[Tensor, int], Tensor]) -> Tensor:
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows].detach().requires_grad_()
            with torch.enable_grad():
                chunk = loss_sum(part, start)
            gradient[start : start + rows] = torch.autograd.grad(chunk, part)[0]
            total += chunk.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0].to(gradient.dtype), None, None


def head_can_wait(model: nn.Module) -> bool:
    """Whether a model's logits are its head applied to what the head is given: no softcap or scale comes after it.

    Asked of the model itself, with eight tokens.
    """
    device = next(model.parameters()).device
    ids = torch.arange(8, device=device)[None] % model.config.vocab_size  # type: ignore[union-attr,operator]
    kept = torch.zeros_like(ids, dtype=torch.bool)
    kept[:, 1::2] = True
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits[kept].float()
            with _deferred_head(model) as project:
                hidden = model(input_ids=ids, logits_to_keep=kept, use_cache=False).logits
            found = project(hidden).float()
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    finally:
        model.train(training)
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=2e-2, atol=2e-2 * expected.abs().max().item())


def _head(model: nn.Module) -> Any:
    inner: Any = getattr(model, "module", model)
    return inner.get_output_embeddings()


@contextmanager
def _deferred_head(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Let the model hand out the hidden states that its head would get, and give the head's own forward to apply later."""
    head = _head(model)
    project, replaced = head.forward, vars(head).get("forward")
    head.forward = lambda hidden: hidden
    try:
        yield project
    finally:
        del head.forward
        if replaced is not None:
            head.forward = replaced


def _per_token(column: Tensor, supervised: Tensor) -> Tensor:
    """Spread a per-row value `[B]` over the supervised tokens of its row `[n]`."""
    return column[:, None].expand_as(supervised)[supervised]


def _wrong(chosen: Registered, what: str, hint: str = "") -> PluginError:
    return PluginError(what, where=f"loss {chosen.component.name!r} ({chosen.origin})", hint=hint)
