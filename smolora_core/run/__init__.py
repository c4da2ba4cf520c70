"""A run, from a config to what it leaves."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
