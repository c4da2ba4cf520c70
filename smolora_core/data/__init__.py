"""From files to token sequences: sources, row formats, preprocessors, and an account of every row."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
