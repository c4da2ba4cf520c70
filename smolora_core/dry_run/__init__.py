"""A run rehearsed without its weights: rows as the model sees them, and the memory a step takes."""
