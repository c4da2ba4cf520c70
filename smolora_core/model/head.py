"""The output head of a language model, deferred: logits are computed later, for chosen positions, a chunk at a time.

Some models transform their logits after the head: Granite and Cohere scale them, Gemma 2 applies a soft cap. The same function
is applied to the deferred logits. It is identified by passing known values through the model, not by the model's name.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import local
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from smolora_core.data.workers import is_worker_death
from smolora_core.errors import TrainingError
from smolora_core.model.device import in_mode
from smolora_core.plugins.loading import describe

# The outermost are far beyond any cap, the others on both sides of the usual caps.
_PROBE = (-1e4, -100.0, -30.0, -10.0, -3.0, -1.0, -0.1, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1e4)


Compute = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""Runs a model on inputs; the result has the rows in its first dimension or, without padding, the tokens in its second."""

RunModel = Callable[[Compute, nn.Module, Mapping[str, Any]], Tensor]
"""Applies a `Compute` to a micro-batch: to all rows at once, or to groups of rows in threads."""


def on_all_rows(compute: Compute, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """Run a model on all rows at once."""
    return compute(model, inputs)


@attrs.frozen
class Head:
    """A head whose logits can be deferred.

    Attributes:
        module: the output embeddings.
        width: the number of logits of a position.
        after: the function that the model applies to its logits.
    """

    module: Any
    width: int
    after: Callable[[Tensor], Tensor]

    @property
    def is_trained(self) -> bool:
        """Whether the head itself is trained."""
        return any(parameter.requires_grad for parameter in self.module.parameters())

    @property
    def is_frozen_linear(self) -> bool:
        """Whether the head is a plain product with a frozen weight."""
        plain = type(self.module) is nn.Linear and "forward" not in vars(self.module) and not self.module._forward_hooks
        return plain and not self.is_trained

    @contextmanager
    def deferred(self) -> Iterator[Compute]:
        """Defer the head: the yielded function runs a model up to it and returns `[B, T, H]`. It is thread-safe."""
        captured = local()

        def capture(hidden: Tensor) -> Tensor:
            captured.hidden = hidden
            # A copy, because a model may change its logits in place.
            return hidden[..., :1].clone()

        def run(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
            _run(model, inputs)
            return cast("Tensor", captured.__dict__.pop("hidden"))

        with _forward_replaced(self.module, capture):
            yield run

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute the model's logits `[n, V]` for chosen positions `[n, H]`, in float32."""
        return self.after(self.module.forward(hidden).float())


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Compute all logits of a model."""
    return cast("Tensor", _run(model, inputs).logits)


def probe_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Make a row of a few tokens to try a model on."""
    ids = torch.arange(8, device=next(model.parameters()).device)[None] % 4
    has_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return {"input_ids": ids} | ({"decoder_input_ids": ids} if has_decoder else {})


def find_head(model: nn.Module) -> Head | None:
    """Find the head of a model; None where it cannot be deferred because the model uses its logits in an unknown way."""
    module = getattr(model, "get_output_embeddings", lambda: None)()
    if module is None:
        return None
    inputs = probe_inputs(model)
    project, probes = module.forward, []

    def probe(hidden: Tensor) -> Tensor:
        # float32 even in a bfloat16 model, so that a factor is found exactly.
        width = project(hidden[..., :1, :]).shape[-1]
        values = torch.tensor(_PROBE, device=hidden.device).repeat(width // len(_PROBE) + 1)[:width]
        probes.append(values.expand(*hidden.shape[:-1], width))
        return probes[-1].clone()

    with in_mode(model, training=False), torch.no_grad(), _forward_replaced(module, probe):
        found = logits_of(model, inputs)
    if len(probes) != 1 or probes[0].shape[:-1] != inputs["input_ids"].shape or found.shape != probes[0].shape:
        return None
    after = _identify(probes[0], found.float())
    return Head(module, found.shape[-1], after) if after is not None else None


def _run(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Run a model without the generation cache, which encoders do not have and may not accept as an argument."""
    parameters = inspect.signature(getattr(model, "get_base_model", lambda: model)().forward).parameters
    accepts_cache = "use_cache" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    try:
        return model(**inputs, use_cache=False) if accepts_cache else model(**inputs)
    except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
        if is_worker_death(error):
            raise
        shape = "x".join(map(str, inputs["input_ids"].shape))
        raise TrainingError(f"the model fails on a batch of {shape} tokens ({describe(error)})") from error


def _identify(given: Tensor, found: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Identify the function that maps the given logits to the found ones: unchanged, scaled or softly capped."""
    top = given.argmax()
    limit = found.flatten()[top].item()
    candidates = (_unchanged, partial(torch.mul, other=limit / given.max().item()), partial(_capped, cap=limit))
    return next((after for after in candidates if torch.allclose(after(given), found, rtol=1e-5, atol=0.0)), None)


def _unchanged(logits: Tensor) -> Tensor:
    return logits


def _capped(logits: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(logits / cap)


@contextmanager
def _forward_replaced(module: Any, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    replaced = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if replaced is not None:
            module.forward = replaced
