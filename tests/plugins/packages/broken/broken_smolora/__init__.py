"""A plugin that needs what nobody has."""

raise ImportError("needs a library that is not installed")
