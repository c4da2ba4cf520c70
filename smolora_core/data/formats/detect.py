"""Detect the shape of a source's rows from the config, the task and the columns."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from smolora_core.config import DataConfig
from smolora_core.data.formats.conversation import OPTIONAL
from smolora_core.data.formats.shapes import Shape, missing_column, number_in
from smolora_core.data.sources.located import Located
from smolora_core.errors import ConfigError, DatasetError

FORMATS = ("text", "prompt-completion", "instruction", "messages")
"""The shapes that a language model can be trained on."""

_DEFAULTS = attrs.fields_dict(DataConfig)

_KEYS = {
    "labelled": ("label_field",),
    "messages": ("messages_field",),
    "instruction": ("instruction_field", "input_field", "output_field"),
    "prompt-completion": ("prompt_field", "completion_field"),
    "text": ("text_field",),
}
"""The config keys that request a shape; of several that are requested, the first that fits is chosen."""

_LABELLED = ("labelled", "scored", "tokens")
"""The shapes with labels; a task accepts one of them."""


def detect_shape(
    config: DataConfig,
    columns: Iterable[str],
    where: str,
    extra: tuple[str, ...] = (),
    formats: Sequence[str] = FORMATS,
) -> Shape:
    """Choose the shape that fits the columns of a source.

    `data.format` decides. If it is `auto`, a shape whose fields the config names is chosen, and otherwise the first of these
    that the columns fit: labelled, messages, instruction, text, prompt-completion.

    Args:
        config: the format and the field names.
        columns: the column names, or a row, which also shows whether prompt and completion are lists of messages.
        where: the place of the first row, for errors.
        extra: the columns that the loss needs.
        formats: the shapes that the task accepts.

    Raises:
        ConfigError: the task does not accept the shape that the config requests.
        DatasetError: a required column is missing.
    """
    row = columns if isinstance(columns, Mapping) else dict.fromkeys(columns)
    candidates = _candidates(config, extra, formats)
    chosen = next(filter(None, (_fitted(shape, row, shape.fields, formats) for shape in candidates)), None)
    if chosen is None:
        # The shape that the row comes closest to was meant; if it has no field of any shape, suggest text.
        present = {shape: sum(column in row for column in shape.fields) / len(shape.fields) for shape in candidates}
        chosen = max(candidates, key=lambda shape: (present[shape], shape.name == "text"))
    if missing := next((column for column in chosen.columns if column not in row), None):
        raise DatasetError.of([missing_column(missing, row, where)])
    return chosen


def peek_shape(
    config: DataConfig, rows: Sequence[Located], extra: tuple[str, ...] = (), formats: Sequence[str] = FORMATS
) -> Shape:
    """Choose the shape of a source from its first rows, of which there must be at least one.

    The first row decides where a bad row is an error. Where bad rows are dropped it may be one of them, so the majority
    decides. Errors are those of `detect_shape`.
    """
    first = rows[0]
    if config.on_bad_row == "error":
        return detect_shape(config, first.row, first.where, extra, formats)
    candidates = _candidates(config, extra, formats)
    fits = (
        next(filter(None, (_fitted(shape, each.row, shape.columns, formats) for shape in candidates)), None) for each in rows
    )
    most = Counter(shape for shape in fits if shape).most_common(1)
    every_column = dict.fromkeys(column for each in rows for column in each.row)
    return most[0][0] if most else detect_shape(config, tuple(every_column), first.where, extra, formats)


def label_kind(config: DataConfig, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Classify the labels of the first rows, of which there may be none; return the kind and the evidence for it.

    Kinds are `tokens` for lists of tokens and tags; `scored` for numbers that are not all whole, or several columns of numbers;
    `multi-label` for lists of labels; `labelled` for any others; empty if there are no labels.
    """
    shapes = {shape.name: shape for shape in _shapes(config, ()) if not rows or all(each in rows[0] for each in shape.fields)}
    tokens = shapes.get("tokens")
    shape = shapes.get("labelled")
    if tokens and (config.format == "tokens" or (rows and _tagged(rows if shape else rows[:1], tokens.fields, bool(shape)))):
        return "tokens", f"columns {' and '.join(tokens.fields)}"
    if shape is None or (config.label_field is None and not rows):
        return "", ""
    _, *fields = shape.fields
    if len(fields) > 1:
        yes_or_no = all(row.get(field) in (0, 1, "0", "1") for row in rows for field in fields)
        return "multi-label" if rows and yes_or_no else "scored", f"data.label_field names {len(fields)} columns"
    values = [row[fields[0]] for row in rows if fields[0] in row]
    if any(isinstance(value, list) for value in values):
        return "multi-label", f"column {fields[0]!r} contains lists"
    numbers = [number_in(value) for value in values]
    if any(number is not None and not number.is_integer() for number in numbers) and None not in numbers:
        return "scored", f"column {fields[0]!r} contains numbers"
    return "labelled", f"column {fields[0]!r} contains labels"


def _tagged(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], has_text: bool) -> bool:
    """Whether rows contain lists of tokens and tags; next to a text, a list counts as tags only if there is one per token."""
    lists: list[list[Any]] = [[row.get(field) for field in fields] for row in rows]
    if not all(type(each) is list for pair in lists for each in pair):
        return False
    return not has_text or all(len(tokens) == len(tags) for tokens, tags in lists)


def _candidates(config: DataConfig, extra: tuple[str, ...], formats: Sequence[str]) -> tuple[Shape, ...]:
    """List the shapes that the config could mean, the likeliest first."""
    if config.format != "auto":
        name = _resolved(config.format, formats)
        _check_accepted(name, f"data.format is {config.format!r}", formats)
        return tuple(shape for shape in _shapes(config, extra) if shape.name == name)
    keys = [(name, key) for name, keys in _KEYS.items() for key in keys if getattr(config, key) != _DEFAULTS[key].default]
    requested = {_resolved(name, formats): key for name, key in keys}
    for name, key in requested.items():
        # Labelled rows have a text field too.
        if name != "text" or not set(_LABELLED).intersection(formats):
            _check_accepted(name, f"data.{key} is set", formats)
    shapes = [shape for shape in _shapes(config, extra) if shape.name in formats]
    wanted = [shape for name in requested for shape in shapes if shape.name == name]
    return tuple(wanted or shapes)


def _resolved(name: str, formats: Sequence[str]) -> str:
    """Resolve `labelled` to the one shape with labels that the task accepts."""
    return next((each for each in _LABELLED if each in formats), name) if name == "labelled" else name


def _check_accepted(name: str, request: str, formats: Sequence[str]) -> None:
    if name not in formats:
        hint = f"it accepts: {', '.join(formats)}"
        raise ConfigError(f"{request}, but the task does not accept {name} rows", hint=hint)


def _shapes(config: DataConfig, extra: tuple[str, ...]) -> Iterable[Shape]:
    labels = config.label_field or ("label", "labels")
    for label in [labels] if isinstance(config.label_field, tuple) else [(each,) for each in _as_tuple(labels)]:
        for name in ("labelled", "scored"):
            yield Shape(name, (config.text_field, *label), extra)
    tokens = "tokens" if config.text_field == _DEFAULTS["text_field"].default else config.text_field
    for tags in _as_tuple(config.label_field or ("tags", "ner_tags")):
        yield Shape("tokens", (tokens, tags), extra)
    for field in _as_tuple(config.messages_field or ("messages", "conversations")):
        yield Shape("messages", (field,), extra, OPTIONAL)
    # Before text: a text next to a conversation or an instruction is mostly the same, rendered.
    yield Shape("instruction", (config.instruction_field, config.output_field), extra, (config.input_field,))
    yield Shape("text", (config.text_field,), extra)
    yield Shape("prompt-completion", (config.prompt_field, config.completion_field), extra)


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _fitted(shape: Shape, row: Mapping[str, Any], columns: Iterable[str], formats: Sequence[str]) -> Shape | None:
    if any(column not in row for column in columns):
        return None
    if shape.name == "prompt-completion" and "messages" in formats and all(type(row[each]) is list for each in shape.fields):
        return attrs.evolve(shape, name="messages", optional=OPTIONAL)
    return shape
