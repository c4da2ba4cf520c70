"""Training: one loop for every task, and an objective that normalises any loss."""

from smolora_core import public_names

__getattr__, __dir__ = public_names(__name__, __file__)
