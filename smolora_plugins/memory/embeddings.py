"""Frozen embeddings and the head in 8 bits, a scale for each row; computed from without ever being whole again."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smolora_core import ConfigError

# Rows of the head that are unpacked at a time.
_ROWS = 8192


class Int8Embedding(nn.Embedding):
    """Embeddings that are looked up in a table of 8 bits."""

    def __init__(self, plain: nn.Embedding, table: "Table") -> None:
        """Take the place of a plain one."""
        super().__init__(plain.num_embeddings, plain.embedding_dim, plain.padding_idx, device="meta")
        del self.weight
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        """Look up `[..., H]`."""
        return self.table.rows(ids)

    def dequantised(self) -> nn.Embedding:
        """Make plain embeddings of what these stand for."""
        return nn.Embedding.from_pretrained(self.table.rows(slice(None)), padding_idx=self.padding_idx)


class Int8Head(nn.Module):
    """A head whose weight is a table of 8 bits."""

    def __init__(self, plain: nn.Linear, table: "Table") -> None:
        """Take the place of a plain one."""
        super().__init__()
        self.in_features, self.out_features, self.bias = plain.in_features, plain.out_features, plain.bias
        self.table = table

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute logits `[..., V]` of `[..., H]`."""
        logits = cast("Tensor", _Product.apply(hidden, self.table))  # type: ignore[no-untyped-call]
        return logits if self.bias is None else logits + self.bias

    def dequantised(self) -> nn.Linear:
        """Make a plain head of what this stands for."""
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        made.weight, made.bias = nn.Parameter(self.table.rows(slice(None)), requires_grad=False), self.bias
        return made


class Table(nn.Module):
    """A matrix of whole numbers from -127 to 127, and a scale for each row."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Round a matrix `[V, H]`."""
        super().__init__()
        codes, scales = torch.empty_like(weight, dtype=torch.int8), weight.new_empty(len(weight), 1)
        for start in range(0, len(weight), _ROWS):
            part = weight[start : start + _ROWS].float()
            scale = (part.abs().amax(1, keepdim=True) / 127).to(weight.dtype)
            scales[start : start + _ROWS] = scale
            codes[start : start + _ROWS] = (part / scale.float().clamp_min(1e-30)).round().clamp(-127, 127)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def rows(self, which: Any) -> Tensor:
        """Unpack some rows."""
        return self.codes[which] * self.scales[which]


class _Product(torch.autograd.Function):
    """`hidden @ table.T`, which keeps nothing for the way back."""

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
        (logits,) = outputs
        total = 0
        for start in range(0, logits.shape[-1], _ROWS):
            part = slice(start, start + _ROWS)
            total = total + logits[..., part] @ ctx.table.rows(part).to(logits.dtype)
        return cast("Tensor", total), None


def quantise_embeddings(base: Any) -> None:
    """Keep the embeddings and the head of a base model in 8 bits; those that are tied share one table.

    Raises:
        ConfigError: one of them is more than a table, because it scales what it gives or is trained.
    """
    tables: dict[int, Table] = {}
    found = {id(each) for each in (base.get_input_embeddings(), base.get_output_embeddings())}
    for name, module in [(name, each) for name, each in base.named_modules() if id(each) in found]:
        if type(module) not in _KINDS:
            what = f"{name!r} is a {type(module).__name__}, which cannot be kept in 8 bits"
            raise ConfigError(what, where="memory:", hint="leave the option embeddings out")
        if id(module.weight) not in tables:
            tables[id(module.weight)] = Table(module.weight.detach())
        base.set_submodule(name, _KINDS[type(module)](module, tables[id(module.weight)]))


_KINDS: dict[type[nn.Module], Any] = {nn.Embedding: Int8Embedding, nn.Linear: Int8Head}
