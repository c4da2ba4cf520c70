"""The head of a language model, made to wait: logits are computed later, for chosen positions, a few at a time.

What a model does to its logits after the head (Granite and Cohere scale them, Gemma 2 caps them softly) is done to those
few as well. It is found out by handing known numbers through the model, not by its name.
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

# The outermost are far beyond any cap, the inner ones on both sides of the usual ones.
_KNOWN = (-1e4, -100.0, -30.0, -10.0, -3.0, -1.0, -0.1, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1e4)


Compute = Callable[[nn.Module, Mapping[str, Any]], Tensor]
"""Runs a model on inputs; the result has the rows in its first dimension or, without padding, the tokens in its second."""

RunModel = Callable[[Compute, nn.Module, Mapping[str, Any]], Tensor]
"""Applies a `Compute` to a micro-batch: to all rows at once, or to groups of rows in threads."""


def on_all_rows(compute: Compute, model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """Run a model on all rows at once."""
    return compute(model, inputs)


@attrs.frozen
class Head:
    """A head that can wait.

    Attributes:
        module: the output embeddings.
        width: logits of a position.
        after: what the model does to logits.
    """

    module: Any
    width: int
    after: Callable[[Tensor], Tensor]

    @property
    def trained(self) -> bool:
        """Whether the head itself gets a gradient."""
        return any(parameter.requires_grad for parameter in self.module.parameters())

    @property
    def linear(self) -> bool:
        """Whether its logits are a product with a frozen weight and nothing else."""
        plain = type(self.module) is nn.Linear and "forward" not in vars(self.module) and not self.module._forward_hooks
        return plain and not self.trained

    @contextmanager
    def waiting(self) -> Iterator[Compute]:
        """Give what runs a model up to its head: `[B, T, H]`; several threads may call it at a time."""
        given = local()

        def answer(hidden: Tensor) -> Tensor:
            given.hidden = hidden
            # One column, in the graph so that data parallelism finds what was used, and no view of the states.
            return hidden[..., :1].clone()

        def run(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
            _run(model, inputs)
            return cast("Tensor", given.__dict__.pop("hidden"))

        with _answering(self.module, answer):
            yield run

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute the logits `[n, V]` of chosen positions `[n, H]` in float32, as the model would have."""
        return self.after(self.module.forward(hidden).float())


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Compute all logits of a model."""
    return cast("Tensor", _run(model, inputs).logits)


def few_tokens(model: nn.Module) -> dict[str, Tensor]:
    """Make inputs to try a model on."""
    ids = torch.arange(8, device=next(model.parameters()).device)[None] % 4
    with_decoder = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    return {"input_ids": ids} | ({"decoder_input_ids": ids} if with_decoder else {})


def find_head(model: nn.Module) -> Head | None:
    """Find the head of a model, unless it cannot wait because nobody knows what the model does with its logits."""
    module = getattr(model, "get_output_embeddings", lambda: None)()
    if module is None:
        return None
    inputs = few_tokens(model)
    ids = inputs["input_ids"]
    project, asked = module.forward, []

    def answer(hidden: Tensor) -> Tensor:
        # In float32 whatever the model computes in, so that a factor is found exactly.
        width = project(hidden[..., :1, :]).shape[-1]
        known = torch.tensor(_KNOWN, device=hidden.device).repeat(width // len(_KNOWN) + 1)[:width]
        asked.append(known.expand(*hidden.shape[:-1], width))
        return asked[-1].clone()

    with in_mode(model, training=False), torch.no_grad(), _answering(module, answer):
        found = logits_of(model, inputs)
    if len(asked) != 1 or asked[0].shape[:-1] != ids.shape or found.shape != asked[0].shape:
        return None
    after = _recognise(asked[0], found.float())
    return Head(module, found.shape[-1], after) if after is not None else None


def _run(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Run a model without the cache that only generating needs; encoders have none, and some know no such argument."""
    base = getattr(model, "get_base_model", lambda: getattr(model, "module", model))()
    known = inspect.signature(getattr(base, "get_base_model", lambda: base)().forward).parameters
    caches = "use_cache" in known or any(each.kind is each.VAR_KEYWORD for each in known.values())
    try:
        return model(**inputs, use_cache=False) if caches else model(**inputs)
    except (RuntimeError, IndexError, TypeError, ValueError, AttributeError) as error:
        if is_worker_death(error):
            raise
        shape = "x".join(map(str, inputs["input_ids"].shape))
        raise TrainingError(f"the model fails on a batch of {shape} tokens ({describe(error)})") from error


def _recognise(given: Tensor, found: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Say which function of the logits was applied, if it is one that is known."""
    top = given.argmax()
    limit = found.flatten()[top].item()
    factor = limit / given.max().item()
    candidates = (_unchanged, partial(_scaled, factor=factor), partial(_capped, cap=limit))
    return next((after for after in candidates if torch.allclose(after(given), found, rtol=1e-5, atol=0.0)), None)


def _unchanged(logits: Tensor) -> Tensor:
    return logits


def _scaled(logits: Tensor, factor: float) -> Tensor:
    return logits * factor


def _capped(logits: Tensor, cap: float) -> Tensor:
    return cap * torch.tanh(logits / cap)


@contextmanager
def _answering(head: Any, answer: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the head answer something else than logits."""
    replaced = vars(head).get("forward")
    head.forward = answer
    try:
        yield
    finally:
        del head.forward
        if replaced is not None:
            head.forward = replaced
