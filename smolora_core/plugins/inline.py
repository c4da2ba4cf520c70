"""Functions and records passed from Python, offered as components of a plugin."""

import re
from collections.abc import Mapping
from itertools import chain, count
from typing import Any

from smolora_core.components import Component, Loss, Preprocessor
from smolora_core.errors import ConfigError
from smolora_core.hookspecs import hookimpl

FROM_PYTHON = "given from Python"
"""The place that errors name for such a component."""


class InlineComponents:
    """A plugin that offers the functions and records passed to it."""

    def __init__(self) -> None:
        self._records: list[Component] = []

    def register(self, given: Any, kind: type[Component]) -> Any:
        """Register a function, callable object or record, and return the name that a config uses for it.

        A name, or a mapping of a name and options, is returned as it is. Anything else raises a ConfigError.
        """
        if isinstance(given, str | Mapping):
            return dict(given) if isinstance(given, Mapping) else given
        if not isinstance(given, kind):
            if not callable(given):
                raise ConfigError(f"a {kind.__name__} must be a name, a function or a record, got {given!r}", where=FROM_PYTHON)
            given = kind(name=self._free_name(given), summary=FROM_PYTHON, implementation=given)
        self._records.append(given)
        return given.name

    def _free_name(self, function: Any) -> str:
        own = re.sub(r"[^a-z0-9]+", "-", getattr(function, "__name__", type(function).__name__).lower()).strip("-") or "given"
        taken = {record.name for record in self._records}
        numbered = (f"{own}-{number}" for number in count(2))
        return next(name for name in chain([own], numbered) if name not in taken)

    @hookimpl
    def smolora_losses(self) -> list[Component]:
        """Offer the losses passed from Python."""
        return [record for record in self._records if isinstance(record, Loss)]

    @hookimpl
    def smolora_preprocessors(self) -> list[Component]:
        """Offer the preprocessors passed from Python."""
        return [record for record in self._records if isinstance(record, Preprocessor)]
