"""Functions and records that a program hands over, as a plugin of its own."""

import re
from collections.abc import Mapping
from itertools import chain, count
from typing import Any

from smolora_core.components import Component, Loss, Preprocessor
from smolora_core.errors import ConfigError
from smolora_core.hookspecs import hookimpl

FROM_PYTHON = "given from Python"
"""Where such a thing stands, for errors."""


class Handed:
    """A plugin of the components that were handed over as functions or records."""

    def __init__(self) -> None:
        self._records: list[Component] = []

    def name(self, given: Any, kind: type[Component]) -> Any:
        """Register a function or a record under a name of its own, and return what a config would say.

        Args:
            given: a name, a name with options, a function, a callable object or a record.
            kind: the record's class.

        Raises:
            ConfigError: it is none of these.
        """
        if isinstance(given, str | Mapping):
            return dict(given) if isinstance(given, Mapping) else given
        if not isinstance(given, kind):
            if not callable(given):
                raise ConfigError(f"a {kind.__name__} must be a name, a function or a record, is {given!r}", where=FROM_PYTHON)
            given = kind(name=self._free_name(given), summary=FROM_PYTHON, implementation=given)
        self._records.append(given)
        return given.name

    def _free_name(self, function: Any) -> str:
        own = re.sub(r"[^a-z0-9]+", "-", getattr(function, "__name__", type(function).__name__).lower()).strip("-") or "given"
        taken = {record.name for record in self._records}
        further = (f"{own}-{number}" for number in count(2))
        return next(name for name in chain([own], further) if name not in taken)

    @hookimpl
    def smolora_losses(self) -> list[Component]:
        """Offer the losses among them."""
        return [record for record in self._records if isinstance(record, Loss)]

    @hookimpl
    def smolora_preprocessors(self) -> list[Component]:
        """Offer the preprocessors among them."""
        return [record for record in self._records if isinstance(record, Preprocessor)]
