"""What training draws at random, besides the order of rows and dropout: the seed of each step, and noise in embeddings."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments, enable_full_determinism
from transformers.integrations.neftune import neftune_post_forward_hook

from smolora_core.batches.padding import mixed_seed


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed every generator for a step, so that its random numbers depend on nothing that happened before."""
    mixed = mixed_seed(seed, step, rank)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed)


@contextmanager
def noisy_embeddings(model: Any, alpha: float | None) -> Iterator[None]:
    """Add NEFTune's noise (arXiv:2310.05914) to the embeddings of tokens while the model trains; None adds none."""
    with ExitStack() as stack:
        weight = None if alpha is None else model.get_input_embeddings().weight
        for each in model.modules():
            # An encoder and a decoder may share the weight, each in a module of its own.
            if weight is not None and isinstance(each, nn.Embedding) and each.weight is weight:
                each.neftune_noise_alpha = alpha  # type: ignore[assignment]
                stack.callback(delattr, each, "neftune_noise_alpha")
                stack.callback(each.register_forward_hook(neftune_post_forward_hook).remove)
        yield


@contextmanager
def deterministic(arguments: TrainingArguments) -> Iterator[None]:
    """Let torch use deterministic algorithms only, if the arguments ask for it; an operation without one raises a RuntimeError.

    Has to begin before anything is computed on a GPU.
    """
    before = torch.are_deterministic_algorithms_enabled()
    if arguments.full_determinism:
        enable_full_determinism(arguments.seed)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
