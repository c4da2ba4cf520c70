"""A model in another mode for a while: learning, where layers may drop something out, or not."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put all of a model into one mode, and afterwards each layer back into its own."""
    before = [(each, each.training) for each in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for each, was in before:
            each.training = was
