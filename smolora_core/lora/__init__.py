"""The LoRA adapter: its targets and options, attaching, merging and verifying what was saved."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
