"""Options of the built-in preprocessors, checked when the config is."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from smolora_core import ConfigError
from smolora_core.config import above, at_least, fraction


def _not_empty(options: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not value:
        raise ConfigError(f"{attribute.name} must name a column")


def _different(options: object, attribute: "attrs.Attribute[Any]", value: Mapping[str, str]) -> None:
    names = list(value.values())
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{attribute.name} makes two columns {twice!r}")


def _below_size(options: Any, attribute: "attrs.Attribute[Any]", value: int) -> None:
    if options.size is not None and value >= options.size:
        raise ConfigError(f"overlap must be below size {options.size}, is {value}")


def _compiles(options: object, attribute: "attrs.Attribute[Any]", value: str) -> None:
    # Only who uses a template waits for the import of jinja2.
    from smolora_plugins.preprocessors.template import compiled

    compiled(value)


@attrs.frozen(kw_only=True)
class DropEmpty:
    """Options of `drop-empty`."""

    fields: tuple[str, ...] = ()
    """Columns none of which may be blank; left out, a row goes when none of its columns holds text."""


@attrs.frozen(kw_only=True)
class Rename:
    """Options of `rename`."""

    columns: Mapping[str, str] = attrs.field(validator=[_not_empty, _different])
    """New names by old ones."""


@attrs.frozen(kw_only=True)
class CombineFields:
    """Options of `combine-fields`."""

    fields: tuple[str, ...] = attrs.field(validator=_not_empty)
    """Columns of text, in their order; blank ones are passed over."""
    into: str | None = None
    """Column to write; left out, data.text_field."""
    separator: str = "\n"
    """What stands between two texts."""


@attrs.frozen(kw_only=True)
class Template:
    """Options of `template`."""

    text: str = attrs.field(validator=_compiles)
    """Jinja template in which columns are variables."""
    into: str | None = None
    """Column to write; left out, data.text_field."""


@attrs.frozen(kw_only=True)
class ChunkWords:
    """Options of `chunk-words`."""

    size: int = attrs.field(validator=above(0))
    """Words in a piece at most."""
    overlap: int = attrs.field(default=0, validator=[at_least(0), _below_size])
    """Words that a piece repeats of the one before it."""
    field: str | None = None
    """Column to cut; left out, data.text_field."""


@attrs.frozen(kw_only=True)
class ChunkTokens:
    """Options of `chunk-tokens`."""

    size: int | None = attrs.field(default=None, validator=above(0))
    """Tokens in a piece at most; left out, what fits data.max_seq_length with the tokens that frame a text."""
    overlap: int = attrs.field(default=0, validator=[at_least(0), _below_size])
    """Tokens that a piece repeats of the one before it, about."""
    field: str | None = None
    """Column to cut; left out, data.text_field."""


@attrs.frozen(kw_only=True)
class Dedup:
    """Options of `dedup`."""

    fields: tuple[str, ...] = ()
    """Columns that make rows equal; left out, all of them."""


@attrs.frozen(kw_only=True)
class NearDedup:
    """Options of `near-dedup`."""

    threshold: float = attrs.field(default=0.9, validator=fraction)
    """Share of shingles that two texts have in common, as MinHash estimates it, from which on the later one goes."""
    fields: tuple[str, ...] = ()
    """Columns whose texts are compared; left out, all of them."""
    shingle: int = attrs.field(default=5, validator=above(0))
    """Characters in a shingle."""


@attrs.frozen(kw_only=True)
class FilterLength:
    """Options of `filter-length`."""

    minimum: int | None = attrs.field(default=None, validator=above(0))
    """Shortest length that stays."""
    maximum: int | None = attrs.field(default=None, validator=above(0))
    """Longest length that stays."""
    unit: Literal["words", "characters", "tokens"] = "words"
    """What is counted."""
    field: str | None = None
    """Column to measure; left out, data.text_field."""

    def __attrs_post_init__(self) -> None:
        if self.minimum is None and self.maximum is None:
            raise ConfigError("minimum or maximum must be given")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ConfigError(f"minimum must not be above maximum {self.maximum}, is {self.minimum}")


@attrs.frozen(kw_only=True)
class Sample:
    """Options of `sample`."""

    fraction: float | None = attrs.field(default=None, validator=fraction)
    """Share of the rows that stays, chosen by their content and the run's seed."""
    rows: int | None = attrs.field(default=None, validator=above(0))
    """Rows that stay at most, the first ones."""

    def __attrs_post_init__(self) -> None:
        if self.fraction is None and self.rows is None:
            raise ConfigError("fraction or rows must be given")


@attrs.frozen(kw_only=True)
class Split:
    """Options of `split`."""

    fraction: float = attrs.field(validator=fraction)
    """Share of the rows that is held out, the same rows that data.eval holds out."""
    keep: Literal["train", "held-out"] = "train"
    """The side that stays."""
