"""From files to batches: sources, row shapes, preprocessors, tokens, and an account of every row."""
