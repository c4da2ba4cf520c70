"""Sphinx: MyST pages and docstrings."""

from importlib import metadata

project = "SmoLoRA"
copyright = "The SmoLoRA authors"  # noqa: A001 -- the name Sphinx wants
release = metadata.version("smolora")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build", "changelog/*"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_enable_extensions = ["colon_fence"]
