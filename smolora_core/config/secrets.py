"""Keep tokens and passwords out of everything that is written or shown."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

__all__ = ["REDACTED", "Mask", "is_secret"]

REDACTED = "redacted"
_SECRET = re.compile(r"(^|_)(token|secret|password|passwd|api_?key|access_?key|credentials?)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
# A shorter value would be found in the middle of harmless words.
_SHORTEST = 8


def is_secret(name: str) -> bool:
    """Whether what goes by a name is nobody's business: `hub_token`, `API_KEY`."""
    return _SECRET.search(name) is not None


@attrs.frozen
class Mask:
    """Puts a word in place of secrets.

    Attributes:
        values: the secrets that are known.
    """

    values: frozenset[str]

    @classmethod
    def of(cls, config: Any = None, environment: Mapping[str, str] = os.environ) -> "Mask":
        """Collect secrets by their names, from a config and from the environment.

        Args:
            config: sections, mappings and lists, nested.
            environment: variables like `HF_TOKEN`.
        """
        found = (value for name, value in (*_named(config), *environment.items()) if is_secret(name))
        return cls(frozenset(value for value in found if len(value) >= _SHORTEST and value != REDACTED))

    def __call__(self, value: Any) -> Any:
        """Mask a text, or every text in nested lists and mappings; what else there is stays as it is."""
        if isinstance(value, str):
            for secret in sorted(self.values, key=len, reverse=True):
                value = value.replace(secret, REDACTED)
            return _IN_ADDRESS.sub(REDACTED, value)
        if isinstance(value, Mapping):
            return {name: self(inner) for name, inner in value.items()}
        return type(value)(map(self, value)) if type(value) in (list, tuple) else value


def _named(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _named(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, name)
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _named(getattr(value, field.name), field.name)
