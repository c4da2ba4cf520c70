"""Attention of documents that lie one behind the other in a row, each to itself.

A row without padding holds the sequences of a micro-batch end to end. Its attention is computed document by document, as
plain products of small matrices: on a processor that is two to four times as fast as the fused kernel, whose backward pass is
slow. It enters a model through transformers' registry of attention functions, and a model that has it
still computes every other input as before.
"""

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Any, cast

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "smolora_documents"
# Tokens of a document whose queries are one block, and of a block of a longer one.
_WHOLE, _BLOCK = 240, 128
# Tokens of a document whose probabilities, the square of its length, are kept for the way back.
_KEPT = 512
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
    return cast("Tensor", _Documents.apply(query, key, value, tuple(bounds), scaling, window))  # type: ignore[no-untyped-call]


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
    longest = max(after - before for before, after in pairwise(bounds))
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    if query.device.type == "cpu" and not dropout:
        return document_attention(query[0], key[0], value[0], bounds, scaling, window)[None], None
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
    parts = []
    for start, end in pairwise(bounds):
        q, k, v = (each[:, :, start:end] for each in (query, key, value))
        mask = None if window is None else _seen(end - start, window, query.device)
        fused = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, **options)
        parts.append(fused.transpose(1, 2))
    return torch.cat(parts, 1), None


def _mask(*arguments: Any, **named: Any) -> Any:
    """Make sdpa's mask, but none for documents: it would be of the square of all tokens, and nobody would look at it."""
    return None if _apart.get() else sdpa_mask(*arguments, **named)


def _begin(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    _apart.set(named.get("cu_seq_lens_q") is not None)


def _end(*arguments: Any) -> None:
    _apart.set(False)


def _seen(length: int, window: int, device: torch.device) -> Tensor:
    """Say which tokens (columns) a token (row) sees."""
    before = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (before >= 0) & (before < window)


class _Documents(torch.autograd.Function):
    """Grouped-query attention by batched products, a block of queries at a time: those of a group are rows of one matrix."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...], scaling: float, window: int | None
    ) -> Tensor:
        blocks = list(_blocks(bounds, window))
        bias = _bias(blocks, window, query.device)
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
        kept = []
        for block in blocks:
            weights = _probabilities(query, key, block, bias, scaling)
            seen = torch.bmm(weights, value[:, block.seen])
            output[block.rows] = _ungrouped(seen, len(query)).transpose(0, 1)
            if block.keep:
                kept.append(weights)
        ctx.save_for_backward(query, key, value, bias, *kept)
        ctx.blocks, ctx.scaling = blocks, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, *saved = ctx.saved_tensors
        given, groups, scaling, kept = outputs[0], len(key), ctx.scaling, iter(saved)
        d_query = _as_projected(query, Tensor.new_empty)
        # A key that is seen from several blocks gets the sum of their shares.
        whole = all(block.whole for block in ctx.blocks)
        d_key, d_value = (_as_projected(each, Tensor.new_empty if whole else Tensor.new_zeros) for each in (key, value))
        for block in ctx.blocks:
            weights = next(kept) if block.keep else _probabilities(query, key, block, bias, scaling)
            q, k, v = _grouped(query[:, block.rows], groups), key[:, block.seen], value[:, block.seen]
            above = _grouped(given[block.rows].transpose(0, 1), groups)
            block.give(d_value, torch.bmm(weights.transpose(1, 2), above))
            d_weights = torch.bmm(above, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(scaling)
            d_query[:, block.rows] = _ungrouped(torch.bmm(d_scores, k), len(query))
            block.give(d_key, torch.bmm(d_scores.transpose(1, 2), q))
        return d_query, d_key, d_value, None, None, None


@attrs.frozen
class _Block:
    """Queries that are computed together.

    Attributes:
        rows: the queries.
        seen: the keys up to the last of them, from the first that any of them sees.
        keep: whether their probabilities are kept for the way back, or computed again.
        whole: whether it is a document.
    """

    rows: slice
    seen: slice
    keep: bool
    whole: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.seen.stop - self.seen.start

    def give(self, to: Tensor, gradient: Tensor) -> None:
        """Give the keys `[K, N, D]` their share."""
        part = to[:, self.seen]
        if self.whole:
            part.copy_(gradient)
        else:
            part.add_(gradient)


def _blocks(bounds: Sequence[int], window: int | None) -> Iterator[_Block]:
    """Part documents into blocks of queries: half of a long one's products would be with keys that are not seen."""
    for start, end in pairwise(bounds):
        size = end - start if end - start <= _WHOLE else _BLOCK
        for begin in range(start, end, size):
            stop = min(begin + size, end)
            first = start if window is None else max(start, begin + 1 - window)
            yield _Block(slice(begin, stop), slice(first, stop), keep=end - start <= _KEPT, whole=size == end - start)


def _bias(blocks: Sequence[_Block], window: int | None, device: torch.device) -> Tensor:
    """Make what is added to scores: 0 or minus infinity, for the tallest and the widest block; others take a part.

    A row sees one column more than the row above it, so that the part of `[b, n]` has its last column where the last of `b`
    rows sees it.
    """
    tall, wide = (max((each.shape[side] for each in blocks), default=0) for side in (0, 1))
    last = torch.arange(wide, wide + tall, device=device)[:, None]
    column = torch.arange(wide + tall, device=device)
    hidden = column > last if window is None else (column > last) | (column <= last - window)
    return torch.zeros(hidden.shape, device=device).masked_fill_(hidden, -torch.inf)


def _probabilities(query: Tensor, key: Tensor, block: _Block, bias: Tensor, scaling: float) -> Tensor:
    """Compute `[K, H / K * b, n]` in the dtype of the query, by a softmax in at least float32."""
    height, width = block.shape
    end = bias.shape[1] - bias.shape[0] + height
    scores = torch.bmm(_grouped(query[:, block.rows], len(key)), key[:, block.seen].transpose(1, 2))
    wide = torch.add(bias[:height, end - width : end], _ungrouped(scores, len(query)), alpha=scaling)
    return _grouped(torch.softmax(wide, -1).to(query.dtype), len(key))


def _grouped(heads: Tensor, groups: int) -> Tensor:
    """Stack the heads of a group: `[H, L, D]` to `[K, H / K * L, D]`."""
    return heads.reshape(groups, -1, heads.shape[-1])


def _ungrouped(stacked: Tensor, heads: int) -> Tensor:
    return stacked.view(heads, -1, stacked.shape[-1])


def _as_projected(heads: Tensor, new: Callable[..., Tensor]) -> Tensor:
    """Make a gradient laid out as the projections' outputs were, so that what follows needs no copy."""
    return new(heads, (heads.shape[1], heads.shape[0], heads.shape[2])).transpose(0, 1)
