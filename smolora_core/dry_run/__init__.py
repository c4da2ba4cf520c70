"""A run rehearsed without its weights: rows as the model sees them, and the memory a step takes."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
