"""Built-in memory."""
