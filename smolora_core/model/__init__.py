"""The base model: its header, layer roles, loading, device and number format, output head and quantised weights."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
