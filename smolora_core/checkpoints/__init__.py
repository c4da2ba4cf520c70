"""Checkpoints: written aside, hashed, and made visible by one rename."""
