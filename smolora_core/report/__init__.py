"""How a run reports: events on disk, and lines on a terminal."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
