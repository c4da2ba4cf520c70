"""The adapter: which modules it adapts, attaching it, merging it, proving what was saved."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
