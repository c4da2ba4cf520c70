"""A dry run: the rows as the model sees them, and the memory a step takes, without loading the weights."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
