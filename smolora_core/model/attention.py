"""Attention of documents that lie one behind the other in a row, each to itself.

A row without padding holds the sequences of a micro-batch end to end. Its attention is computed document by document, as
plain products of small matrices: on a processor that is several times as fast as the fused kernel, whose backward pass is
slow on short documents. It enters a model through transformers' registry of attention functions, and a model that has it
still computes every other input as before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["document_attention", "use_document_attention"]

_NAME = "smolora_documents"
# Beyond this the fused kernel wins, whose memory does not grow with the square of the length.
_LONG = 320
_REFUSED = ("softcap", "s_aux", "position_bias", "cache")

_apart: ContextVar[bool] = ContextVar("_apart", default=False)


def use_document_attention(model: Any) -> Callable[[], None]:
    """Let a model keep documents apart where it is told of them by `cu_seq_lens_q`.

    Returns:
        What undoes it.

    Raises:
        ValueError: the model does not take attention functions, or uses another one than sdpa.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        raise ValueError(f"its attention is {before}, not sdpa")
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _mask)
    model.set_attn_implementation(_NAME)
    hooks = [
        model.register_forward_pre_hook(_begin, with_kwargs=True),
        model.register_forward_hook(_end, always_call=True),
    ]

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        model.set_attn_implementation(before)

    return undo


def document_attention(
    query: Tensor, key: Tensor, value: Tensor, bounds: Sequence[int], scaling: float, window: int | None = None
) -> Tensor:
    """Attend causally within each document.

    Args:
        query: `[H, N, D]`.
        key: `[K, N, D]`, where `K` divides `H`.
        value: `[K, N, E]`.
        bounds: where documents begin, and N.
        scaling: of the products.
        window: how many tokens a token sees, itself among them; None for all before it.

    Returns:
        `[N, H, E]`.
    """
    return cast(Tensor, _Documents.apply(query, key, value, tuple(bounds), scaling, window))  # type: ignore[no-untyped-call]


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more)
    if refused := [name for name in _REFUSED if more.get(name) is not None]:
        raise NotImplementedError(f"attention with {refused[0]}")
    if not more.get("is_causal", getattr(module, "is_causal", True)):
        raise NotImplementedError("attention to later tokens")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    bounds = cu_seq_lens_q.tolist()
    plain = query.device.type == "cpu" and not dropout
    parts = []
    for start, end, short in _runs(bounds, _LONG if plain else 0):
        part = bounds[start : end + 1]
        q, k, v = (each[0, :, part[0] : part[-1]] for each in (query, key, value))
        longest = max(after - before for before, after in pairwise(part))
        window = sliding_window if sliding_window is not None and sliding_window < longest else None
        if short:
            parts.append(document_attention(q, k, v, [each - part[0] for each in part], scaling, window))
        else:
            mask = None if window is None else ~_hidden(longest, window, query.device)
            options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": len(k) != len(q)}
            fused = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, is_causal=mask is None, **options)
            parts.append(fused[0].transpose(0, 1))
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


def _runs(bounds: Sequence[int], limit: int) -> Iterator[tuple[int, int, bool]]:
    """Part documents into runs of short ones and single long ones: the first, the one after the last, and which it is."""
    start = 0
    for at, (begin, end) in enumerate(pairwise(bounds)):
        if end - begin > limit:
            if at > start:
                yield start, at, True
            yield at, at + 1, False
            start = at + 1
    if start < len(bounds) - 1:
        yield start, len(bounds) - 1, True


def _mask(*arguments: Any, **named: Any) -> Any:
    """Make sdpa's mask, but none for documents: it would be of the square of all tokens, and nobody would look at it."""
    return None if _apart.get() else sdpa_mask(*arguments, **named)


def _begin(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    _apart.set(named.get("cu_seq_lens_q") is not None)


def _end(*arguments: Any) -> None:
    _apart.set(False)


def _hidden(length: int, window: int | None, device: torch.device) -> Tensor:
    """Say which tokens (columns) a token (row) does not see."""
    hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    if window is not None:
        hidden |= torch.ones(length, length, dtype=torch.bool, device=device).tril(-window)
    return hidden


class _Documents(torch.autograd.Function):
    """Grouped-query attention by batched products: the queries of a group are rows of one matrix."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...], scaling: float, window: int | None
    ) -> Tensor:
        hidden = _biases(query.device, bounds, window)
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
        kept = []
        for part in _spans(bounds):
            weights = _probabilities(query[:, part], key[:, part], hidden, scaling)
            seen = torch.bmm(_grouped(weights, len(key)), value[:, part])
            output[part] = seen.view(len(query), -1, value.shape[-1]).transpose(0, 1)
            kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.bounds, ctx.scaling = bounds, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        given, groups, scaling = outputs[0], len(key), ctx.scaling
        # Laid out as the projections' outputs were, so that what follows needs no copy.
        d_query, d_key, d_value = (each.new_empty(each.shape[1], each.shape[0], each.shape[2]) for each in (query, key, value))
        for part, weights in zip(_spans(ctx.bounds), kept, strict=True):
            q, k, v = query[:, part], key[:, part], value[:, part]
            above = _grouped(given[part].transpose(0, 1), groups)
            d_value[part] = torch.bmm(_grouped(weights, groups).transpose(1, 2), above).transpose(0, 1)
            d_weights = torch.bmm(above, v.transpose(1, 2)).view_as(weights)
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(scaling)
            d_scores = _grouped(d_scores, groups)
            d_query[part] = torch.bmm(d_scores, k).view(len(query), -1, query.shape[-1]).transpose(0, 1)
            d_key[part] = torch.bmm(d_scores.transpose(1, 2), _grouped(q, groups)).transpose(0, 1)
        gradients = (each.transpose(0, 1) for each in (d_query, d_key, d_value))
        return (*gradients, None, None, None)


def _spans(bounds: Sequence[int]) -> Iterator[slice]:
    return (slice(start, end) for start, end in pairwise(bounds) if end > start)


def _grouped(heads: Tensor, groups: int) -> Tensor:
    """Stack the heads of a group: `[H, L, D]` to `[K, H / K * L, D]`."""
    return heads.reshape(groups, -1, heads.shape[-1])


def _biases(device: torch.device, bounds: Sequence[int], window: int | None) -> Tensor:
    """Make what is added to scores, for the longest document; a shorter one takes the corner."""
    longest = max(end - start for start, end in pairwise(bounds))
    return torch.zeros(longest, longest, device=device).masked_fill_(_hidden(longest, window, device), -torch.inf)


def _probabilities(query: Tensor, key: Tensor, hidden: Tensor, scaling: float) -> Tensor:
    """Compute `[H, L, L]` in the dtype of the query, by a softmax in at least float32."""
    length = query.shape[1]
    scores = torch.bmm(_grouped(query, len(key)), key.transpose(1, 2)).view(len(query), length, length)
    scores = torch.add(hidden[:length, :length], scores, alpha=scaling)
    return torch.softmax(scores, -1).to(query.dtype)
