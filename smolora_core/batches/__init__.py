"""Micro-batches: from texts to token ids to tensors, as preparing rows, training and predicting all need them."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
