"""Built-in checkpoints."""
