"""Micro-batches: tokenise texts, and batch token sequences for training and inference."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
