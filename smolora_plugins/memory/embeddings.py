"""Frozen embeddings and heads in 8 bits with one scale per row, never unpacked as a whole in training."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smolora_core import ConfigError

# The number of rows of a head unpacked at a time.
_ROWS = 8192


class Int8Embedding(nn.Embedding):
    """Embeddings looked up in an 8-bit table."""

    def __init__(self, plain: nn.Embedding, table: "Table") -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, plain.padding_idx, device="meta")
        del self.weight
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        """Look up `[..., H]`."""
        return self.table.rows(ids)

    def dequantised(self) -> nn.Embedding:
        """Unpack into plain embeddings."""
        return nn.Embedding.from_pretrained(self.table.rows(slice(None)), padding_idx=self.padding_idx)


class Int8Head(nn.Module):
    """A head whose weight is an 8-bit table."""

    def __init__(self, plain: nn.Linear, table: "Table") -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = plain.in_features, plain.out_features, plain.bias
        self.table = table

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute logits `[..., V]` from `[..., H]`."""
        logits = cast("Tensor", _Product.apply(hidden, self.table))  # type: ignore[no-untyped-call]
        return logits if self.bias is None else logits + self.bias

    def dequantised(self) -> nn.Linear:
        """Unpack into a plain head."""
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        made.weight, made.bias = nn.Parameter(self.table.rows(slice(None)), requires_grad=False), self.bias
        return made


class Table(nn.Module):
    """A matrix `[V, H]` of integers from -127 to 127, with one scale per row."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        codes, scales = torch.empty_like(weight, dtype=torch.int8), weight.new_empty(len(weight), 1)
        for start in range(0, len(weight), _ROWS):
            part = weight[start : start + _ROWS].float()
            scale = (part.abs().amax(1, keepdim=True) / 127).to(weight.dtype)
            scales[start : start + _ROWS] = scale
            codes[start : start + _ROWS] = (part / scale.float().clamp_min(1e-30)).round().clamp(-127, 127)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def rows(self, index: Any) -> Tensor:
        """Unpack the rows that `index` selects."""
        return self.codes[index] * self.scales[index]


class _Product(torch.autograd.Function):
    """Compute `hidden @ table.T` without saving activations for the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Table) -> Tensor:
        ctx.table = table
        logits = hidden.new_empty(*hidden.shape[:-1], len(table.codes))
        for start in range(0, len(table.codes), _ROWS):
            part = slice(start, start + _ROWS)
            logits[..., part] = F.linear(hidden, table.rows(part).to(hidden.dtype))
        return logits

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = outputs
        total = 0
        for start in range(0, gradient.shape[-1], _ROWS):
            part = slice(start, start + _ROWS)
            total = total + gradient[..., part] @ ctx.table.rows(part).to(gradient.dtype)
        return cast("Tensor", total), None


def quantise_embeddings(base: Any) -> None:
    """Quantise a base model's embeddings and head to 8 bits; tied ones share one table.

    Raises:
        ConfigError: one of them is not a plain layer, because it scales its output or is trainable.
    """
    tables: dict[int, Table] = {}
    found = {id(each) for each in (base.get_input_embeddings(), base.get_output_embeddings())}
    for name, module in [(name, each) for name, each in base.named_modules() if id(each) in found]:
        if type(module) not in _REPLACEMENTS:
            what = f"{name!r} is of type {type(module).__name__}, which cannot be stored in 8 bits"
            raise ConfigError(what, where="memory:", hint="set embeddings to false")
        if id(module.weight) not in tables:
            tables[id(module.weight)] = Table(module.weight.detach())
        base.set_submodule(name, _REPLACEMENTS[type(module)](module, tables[id(module.weight)]))


_REPLACEMENTS: dict[type[nn.Module], Any] = {nn.Embedding: Int8Embedding, nn.Linear: Int8Head}
