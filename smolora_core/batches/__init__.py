"""Micro-batches: what preparing rows and training both need."""
