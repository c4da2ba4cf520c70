"""The command line: one command a module, none of them imported before it runs."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
