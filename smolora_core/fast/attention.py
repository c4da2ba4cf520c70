"""Attention over packed sequences: the sequences of a micro-batch end to end in one row, each attending to itself only.

Each sequence's attention is computed with plain products of small matrices. On a CPU that is two to four times as fast as the
fused kernel, whose backward pass is slow. The function is registered with transformers' attention interface; inputs that are
not packed are computed as before.
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
# In tokens: the longest sequence whose queries are one block, and the block size of longer ones.
_MAX_SINGLE_BLOCK, _BLOCK_SIZE = 240, 128
# In tokens: the longest sequence whose probabilities, quadratic in its length, are saved for the backward pass.
_MAX_SAVED = 512
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cache")

_packed: ContextVar[bool] = ContextVar("_packed", default=False)


def use_document_attention(model: Any) -> Callable[[], None]:
    """Make a model's attention isolate the sequences that `cu_seq_lens_q` delimits; return a function that restores it.

    Raises:
        ValueError: the model does not support attention functions, or does not use sdpa.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        raise ValueError(f"its attention is {before}, not sdpa")
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _mask)
    model.set_attn_implementation(_NAME)
    enter = model.register_forward_pre_hook(_enter, with_kwargs=True)
    leave = model.register_forward_hook(_leave, always_call=True)

    def undo() -> None:
        enter.remove()
        leave.remove()
        model.set_attn_implementation(before)

    return undo


def document_attention(
    query: Tensor, key: Tensor, value: Tensor, bounds: Sequence[int], scaling: float, window: int | None = None
) -> Tensor:
    """Attend causally within each sequence.

    Args:
        query: `[H, N, D]`.
        key: `[K, N, D]`, where `K` divides `H`.
        value: `[K, N, E]`.
        bounds: the start of each sequence, and N.
        scaling: the factor on the scores.
        window: the number of tokens a token attends to, including itself; None for all up to itself.

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
    if unsupported := [name for name in _UNSUPPORTED if more.get(name) is not None]:
        raise NotImplementedError(f"attention with {unsupported[0]}")
    if not more.get("is_causal", getattr(module, "is_causal", True)):
        raise NotImplementedError("attention that is not causal")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    bounds = cu_seq_lens_q.tolist()
    longest = max(end - start for start, end in pairwise(bounds))
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    if query.device.type == "cpu" and not dropout:
        return document_attention(query[0], key[0], value[0], bounds, scaling, window)[None], None
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": key.shape[1] != query.shape[1]}
    outputs = []
    for start, end in pairwise(bounds):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        mask = None if window is None else _window_mask(end - start, window, query.device)
        output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, **options)
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, 1), None


def _mask(*args: Any, **kwargs: Any) -> Any:
    """Make sdpa's mask, or none for packed sequences: it would be quadratic in all tokens, and unused."""
    return None if _packed.get() else sdpa_mask(*args, **kwargs)


def _enter(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _packed.set(kwargs.get("cu_seq_lens_q") is not None)


def _leave(*args: Any) -> None:
    _packed.set(False)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """Make the mask `[length, length]` of the tokens (columns) that each token (row) attends to."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


class _Documents(torch.autograd.Function):
    """Grouped-query attention by batched products, one block of queries at a time; a group's heads are rows of one matrix."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[int, ...], scaling: float, window: int | None
    ) -> Tensor:
        blocks = list(_blocks(bounds, window))
        bias = _bias(blocks, window, query.device)
        output = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
        saved = []
        for block in blocks:
            weights = _probabilities(query, key, block, bias, scaling)
            output[block.queries] = _ungrouped(torch.bmm(weights, value[:, block.keys]), len(query)).transpose(0, 1)
            if block.save:
                saved.append(weights)
        ctx.save_for_backward(query, key, value, bias, *saved)
        ctx.blocks, ctx.scaling = blocks, scaling
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, *saved = ctx.saved_tensors
        grad_output, groups, scaling, probabilities = grad_outputs[0], len(key), ctx.scaling, iter(saved)
        d_query = _as_projected(query, Tensor.new_empty)
        # Keys shared by several blocks accumulate gradients, so they start at zero.
        new = Tensor.new_empty if all(block.is_sequence for block in ctx.blocks) else Tensor.new_zeros
        d_key, d_value = _as_projected(key, new), _as_projected(value, new)
        for block in ctx.blocks:
            weights = next(probabilities) if block.save else _probabilities(query, key, block, bias, scaling)
            q, k, v = _grouped(query[:, block.queries], groups), key[:, block.keys], value[:, block.keys]
            d_output = _grouped(grad_output[block.queries].transpose(0, 1), groups)
            block.add_gradient(d_value, torch.bmm(weights.transpose(1, 2), d_output))
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(scaling)
            d_query[:, block.queries] = _ungrouped(torch.bmm(d_scores, k), len(query))
            block.add_gradient(d_key, torch.bmm(d_scores.transpose(1, 2), q))
        return d_query, d_key, d_value, None, None, None


@attrs.frozen
class _Block:
    """Queries that are computed together.

    Attributes:
        queries: the positions of the queries.
        keys: the positions of all keys that any of the queries attends to.
        save: whether the probabilities are saved for the backward pass rather than recomputed.
        is_sequence: whether the block is a whole sequence.
    """

    queries: slice
    keys: slice
    save: bool
    is_sequence: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.queries.stop - self.queries.start, self.keys.stop - self.keys.start

    def add_gradient(self, total: Tensor, gradient: Tensor) -> None:
        """Add the block's share to the gradient `[K, N, D]` of keys or values."""
        part = total[:, self.keys]
        if self.is_sequence:
            part.copy_(gradient)
        else:
            part.add_(gradient)


def _blocks(bounds: Sequence[int], window: int | None) -> Iterator[_Block]:
    """Split sequences into blocks of queries; a long sequence as one block would waste half of its products on masked keys."""
    for start, end in pairwise(bounds):
        length = end - start
        size = length if length <= _MAX_SINGLE_BLOCK else _BLOCK_SIZE
        for begin in range(start, end, size):
            stop = min(begin + size, end)
            first = start if window is None else max(start, begin + 1 - window)
            yield _Block(slice(begin, stop), slice(first, stop), save=length <= _MAX_SAVED, is_sequence=size == length)


def _bias(blocks: Sequence[_Block], window: int | None, device: torch.device) -> Tensor:
    """Make the additive mask, 0 or minus infinity, for the tallest and the widest block; each block takes a slice of it.

    Every row attends to one column more than the row above it, so the columns of a slice `[b, n]` end where row b attends to
    the last one.
    """
    height, width = (max((block.shape[side] for block in blocks), default=0) for side in (0, 1))
    last = torch.arange(width, width + height, device=device)[:, None]
    column = torch.arange(width + height, device=device)
    masked = column > last if window is None else (column > last) | (column <= last - window)
    return torch.zeros(masked.shape, device=device).masked_fill_(masked, -torch.inf)


def _probabilities(query: Tensor, key: Tensor, block: _Block, bias: Tensor, scaling: float) -> Tensor:
    """Compute `[K, H / K * b, n]` in the dtype of the query, with a softmax in at least float32."""
    height, width = block.shape
    end = bias.shape[1] - bias.shape[0] + height
    scores = torch.bmm(_grouped(query[:, block.queries], len(key)), key[:, block.keys].transpose(1, 2))
    masked = torch.add(bias[:height, end - width : end], _ungrouped(scores, len(query)), alpha=scaling)
    return _grouped(torch.softmax(masked, -1).to(query.dtype), len(key))


def _grouped(heads: Tensor, groups: int) -> Tensor:
    """Stack the heads of a group: `[H, L, D]` to `[K, H / K * L, D]`."""
    return heads.reshape(groups, -1, heads.shape[-1])


def _ungrouped(stacked: Tensor, heads: int) -> Tensor:
    return stacked.view(heads, -1, stacked.shape[-1])


def _as_projected(heads: Tensor, new: Callable[..., Tensor]) -> Tensor:
    """Allocate a gradient in the memory layout of the projections' outputs, so that their backward pass needs no copy."""
    return new(heads, (heads.shape[1], heads.shape[0], heads.shape[2])).transpose(0, 1)
