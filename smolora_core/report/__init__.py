"""What a run says: events on disk, lines on a terminal, and a page."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
