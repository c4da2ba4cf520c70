"""A run, from a config to its outcome."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
