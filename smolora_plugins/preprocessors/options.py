"""Options of the built-in preprocessors, validated with the config."""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from smolora_core import ConfigError
from smolora_core.config import above, at_least, fraction


def _not_empty(options: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not value:
        raise ConfigError(f"{attribute.name} must not be empty")


def _distinct(options: object, attribute: "attrs.Attribute[Any]", value: Mapping[str, str]) -> None:
    names = list(value.values())
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{attribute.name} renames two columns to {duplicate!r}")


def _below_size(options: Any, attribute: "attrs.Attribute[Any]", value: int) -> None:
    if options.size is not None and value >= options.size:
        raise ConfigError(f"overlap must be below size {options.size}, got {value}")


def _compiles(options: object, attribute: "attrs.Attribute[Any]", value: str) -> None:
    # Imports jinja2, which only users of a template should wait for.
    from smolora_plugins.preprocessors.template import compiled

    compiled(value)


@attrs.frozen(kw_only=True)
class DropEmpty:
    """Options of `drop-empty`."""

    fields: tuple[str, ...] = ()
    """The columns that must not be blank; by default, any column with text is enough."""


@attrs.frozen(kw_only=True)
class Rename:
    """Options of `rename`."""

    columns: Mapping[str, str] = attrs.field(validator=[_not_empty, _distinct])
    """New column names by old ones."""


@attrs.frozen(kw_only=True)
class CombineFields:
    """Options of `combine-fields`."""

    fields: tuple[str, ...] = attrs.field(validator=_not_empty)
    """The text columns, in order; blank ones are skipped."""
    into: str | None = None
    """The output column; data.text_field by default."""
    separator: str = "\n"
    """The separator between two texts."""


@attrs.frozen(kw_only=True)
class Template:
    """Options of `template`."""

    text: str = attrs.field(validator=_compiles)
    """The Jinja template, with columns as variables."""
    into: str | None = None
    """The output column; data.text_field by default."""


@attrs.frozen(kw_only=True)
class ChunkWords:
    """Options of `chunk-words`."""

    size: int = attrs.field(validator=above(0))
    """The maximum number of words in a piece."""
    overlap: int = attrs.field(default=0, validator=[at_least(0), _below_size])
    """The number of words repeated from the previous piece."""
    field: str | None = None
    """The column to split; data.text_field by default."""


@attrs.frozen(kw_only=True)
class ChunkTokens:
    """Options of `chunk-tokens`."""

    size: int | None = attrs.field(default=None, validator=above(0))
    """The maximum number of tokens in a piece; by default, what fits in data.max_seq_length with special tokens."""
    overlap: int = attrs.field(default=0, validator=[at_least(0), _below_size])
    """The approximate number of tokens repeated from the previous piece."""
    field: str | None = None
    """The column to split; data.text_field by default."""


@attrs.frozen(kw_only=True)
class Dedup:
    """Options of `dedup`."""

    fields: tuple[str, ...] = ()
    """The columns to compare; all by default."""


@attrs.frozen(kw_only=True)
class NearDedup:
    """Options of `near-dedup`."""

    threshold: float = attrs.field(default=0.9, validator=fraction)
    """The estimated share of common shingles (Jaccard similarity) at which the later text is dropped."""
    fields: tuple[str, ...] = ()
    """The columns to compare; all by default."""
    shingle: int = attrs.field(default=5, validator=above(0))
    """The number of characters in a shingle."""


@attrs.frozen(kw_only=True)
class FilterLength:
    """Options of `filter-length`."""

    minimum: int | None = attrs.field(default=None, validator=above(0))
    """The minimum length to keep."""
    maximum: int | None = attrs.field(default=None, validator=above(0))
    """The maximum length to keep."""
    unit: Literal["words", "characters", "tokens"] = "words"
    """The unit of length."""
    field: str | None = None
    """The column to measure; data.text_field by default."""

    def __attrs_post_init__(self) -> None:
        if self.minimum is None and self.maximum is None:
            raise ConfigError("set minimum, maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ConfigError(f"minimum {self.minimum} is greater than maximum {self.maximum}")


@attrs.frozen(kw_only=True)
class Sample:
    """Options of `sample`."""

    fraction: float | None = attrs.field(default=None, validator=fraction)
    """The share of rows to keep, chosen by their content and the run's seed."""
    rows: int | None = attrs.field(default=None, validator=above(0))
    """The maximum number of rows to keep, the first ones."""

    def __attrs_post_init__(self) -> None:
        if self.fraction is None and self.rows is None:
            raise ConfigError("set fraction, rows or both")


@attrs.frozen(kw_only=True)
class Split:
    """Options of `split`."""

    fraction: float = attrs.field(validator=fraction)
    """The share of rows held out; the same rows as data.eval holds out."""
    keep: Literal["train", "held-out"] = "train"
    """The side of the split to keep."""
