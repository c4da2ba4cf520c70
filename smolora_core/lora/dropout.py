"""The adapters' dropout, drawn row by row: a row's mask depends on its seed and the layer, whatever it is batched with.

So a step draws the same masks however its rows are split among micro-batches, threads and processes, and a layer that is
computed again draws them again. On a GPU, the mask of a padded row also depends on the padded length.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import attrs
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from smolora_core.batches.padding import mixed_seed


@attrs.frozen
class RowSeeds:
    """The rows that a model runs on.

    Attributes:
        seeds: a seed for each row.
        lengths: the tokens of each row where rows are concatenated; None where they are padded.
    """

    seeds: Sequence[int]
    lengths: Sequence[int] | None = None

    def select(self, rows: Sequence[int]) -> "RowSeeds":
        """Select rows, in the order given."""
        lengths = self.lengths and [self.lengths[row] for row in rows]
        return RowSeeds([self.seeds[row] for row in rows], lengths)

    def _sizes(self, x: Tensor) -> Sequence[int]:
        """Return how many elements of `x` belong to each row, if they follow one another; nothing where they cannot."""
        lengths = self.lengths or [1] * len(self.seeds)
        width, rest = divmod(x.numel(), sum(lengths))
        return () if rest else [length * width for length in lengths]


# A backward pass on a GPU recomputes layers in threads that have no context of ours: they find the rows of the last `seeded`.
_latest: list[RowSeeds | None] = [None]
_own: ContextVar[RowSeeds | None] = ContextVar("_own", default=None)


@contextmanager
def seeded(rows: RowSeeds) -> Iterator[None]:
    """Draw the adapters' dropout from the seeds of rows, in forward passes and in backward passes that recompute layers."""
    before, _latest[0] = _latest[0], rows
    try:
        yield
    finally:
        _latest[0] = before


@contextmanager
def seeded_here(rows: RowSeeds) -> Iterator[None]:
    """Do as `seeded`, in this thread only."""
    token = _own.set(rows)
    try:
        yield
    finally:
        _own.reset(token)


def current_seeds() -> RowSeeds | None:
    """Return the rows that `seeded` has named."""
    return _own.get() or _latest[0]


@contextmanager
def row_dropout(model: nn.Module) -> Iterator[bool]:
    """Let adapters drop out row by row for the duration of a block, which gets whether any of them does."""
    layers: list[Any] = [
        dropout
        for module in model.modules()
        if isinstance(module, LoraLayer)
        for dropout in module.lora_dropout.values()
        if type(dropout) is nn.Dropout and dropout.p
    ]
    for number, layer in enumerate(layers):
        layer.__class__ = RowDropout
        layer.number = number
    try:
        yield bool(layers)
    finally:
        for layer in layers:
            layer.__class__ = nn.Dropout


class RowDropout(nn.Dropout):
    """Dropout that `draw_dropped` draws."""

    number: int

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of `[B, T, H]`, or of concatenated rows `[1, N, H]`; some models join the first two dimensions."""
        if not self.training:
            return x
        dropped, share = draw_dropped(x, self.p, self.number)
        return x.masked_fill(dropped, 0) / (1 - share)


def draw_dropped(x: Tensor, p: float, layer: int) -> tuple[Tensor, float]:
    """Draw the mask of dropped elements and their exact share: p rounded to 16 bits, so that one draw serves four elements.

    Without `seeded`, or where the rows of `x` are unknown, the mask comes from torch's global generator.
    """
    limit = max(1, round(p * 2**16))
    rows = current_seeds()
    sizes = rows._sizes(x) if rows else ()
    if rows and sizes:
        generator = torch.Generator(x.device)
        seeds = (mixed_seed(seed, layer) for seed in rows.seeds)
        drawn = torch.cat([_draw(size, generator.manual_seed(seed)) for seed, size in zip(seeds, sizes, strict=True)])
    else:
        drawn = _draw(x.numel(), None, x.device)
    return (drawn < limit - 2**15).view(x.shape), limit / 2**16


def _draw(count: int, generator: torch.Generator | None, device: torch.device | None = None) -> Tensor:
    drawn = torch.empty(-(-count // 4), dtype=torch.int64, device=generator.device if generator else device)
    return drawn.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
