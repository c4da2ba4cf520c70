"""A run, from a config to what it leaves."""
