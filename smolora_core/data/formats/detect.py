"""Which shape the rows of a source have: what the config asks for, what the task takes, what the columns show."""

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
"""Shapes that a language model learns from."""

_DEFAULTS = attrs.fields_dict(DataConfig)

_KEYS = {
    "labelled": ("label_field",),
    "messages": ("messages_field",),
    "instruction": ("instruction_field", "input_field", "output_field"),
    "prompt-completion": ("prompt_field", "completion_field"),
    "text": ("text_field",),
}
"""The config keys that ask for a shape; where several are asked for, the first that fits is meant."""

_LABELLED = ("labelled", "scored", "tokens")
"""The shapes that have labels, of which a task takes one."""


def detect_shape(
    config: DataConfig,
    columns: Iterable[str],
    where: str,
    extra: tuple[str, ...] = (),
    formats: Sequence[str] = FORMATS,
) -> Shape:
    """Choose the shape that the columns of a source have.

    The format is what the config says it is. Left to us, it is the one whose fields the config names; and if it names none,
    the first that the columns have of: labelled, messages, instruction, text, prompt-completion.

    Args:
        config: the format and the names of the fields.
        columns: what the source has; a row shows whether prompt and completion are texts or lists of messages.
        where: its first row, for the error.
        extra: columns that the loss needs.
        formats: shapes that the task learns from.

    Raises:
        ConfigError: the task does not learn from the shape that the config asks for.
        DatasetError: a column that is needed is not there.
    """
    row = columns if isinstance(columns, Mapping) else dict.fromkeys(columns)
    candidates = _candidates(config, extra, formats)
    chosen = next(filter(None, (_fitted(shape, row, shape.fields, formats) for shape in candidates)), None)
    if chosen is None:
        # What the row nearly has is what was meant; where it has nothing of any, text is what one would start with.
        present = {shape: sum(column in row for column in shape.fields) / len(shape.fields) for shape in candidates}
        chosen = max(candidates, key=lambda shape: (present[shape], shape.name == "text"))
    if missing := next((column for column in chosen.columns if column not in row), None):
        raise DatasetError.of([missing_column(missing, row, where)])
    return chosen


def peek_shape(
    config: DataConfig, rows: Sequence[Located], extra: tuple[str, ...] = (), formats: Sequence[str] = FORMATS
) -> Shape:
    """Choose the shape of a source by its first rows.

    Where a bad row is an error, the first row decides. Where bad rows are dropped, it may be one of them: the shape is that
    of most rows.

    Args:
        config: the format, the names of the fields, and what becomes of bad rows.
        rows: at least one.
        extra: columns that the loss needs.
        formats: shapes that the task learns from.

    Raises:
        ConfigError: the task does not learn from the shape that the config asks for.
        DatasetError: a column that is needed is not there.
    """
    first = rows[0]
    if config.on_bad_row == "error":
        return detect_shape(config, first.row, first.where, extra, formats)
    candidates = _candidates(config, extra, formats)
    fits = (
        next(filter(None, (_fitted(shape, each.row, shape.columns, formats) for shape in candidates)), None) for each in rows
    )
    most = Counter(shape for shape in fits if shape).most_common(1)
    return most[0][0] if most else detect_shape(config, _union(rows), first.where, extra, formats)


def label_kind(config: DataConfig, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Say what the labels of some rows are, and by what that is told.

    Args:
        config: the format and the names of the fields.
        rows: the first ones; none where they cannot be looked at.

    Returns:
        `tokens` for lists of tokens and tags; `scored` for numbers, one of which is not whole, or several fields of them;
        `several` for lists of labels; `labelled`; or nothing, where there are no labels.
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
        return "several" if rows and yes_or_no else "scored", f"data.label_field names {len(fields)} columns"
    values = [row[fields[0]] for row in rows if fields[0] in row]
    if any(isinstance(value, list) for value in values):
        return "several", f"column {fields[0]!r} holds lists"
    numbers = [number_in(value) for value in values]
    if any(number is not None and not number.is_integer() for number in numbers) and None not in numbers:
        return "scored", f"column {fields[0]!r} holds numbers"
    return "labelled", f"column {fields[0]!r} holds labels"


def _tagged(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], has_text: bool) -> bool:
    """Whether rows hold lists; beside a text these may be labels of it, unless there is one for each token."""
    lists: list[list[Any]] = [[row.get(field) for field in fields] for row in rows]
    if not all(type(each) is list for pair in lists for each in pair):
        return False
    return not has_text or all(len(tokens) == len(tags) for tokens, tags in lists)


def _candidates(config: DataConfig, extra: tuple[str, ...], formats: Sequence[str]) -> tuple[Shape, ...]:
    """List the shapes that may be meant, the likeliest first."""
    if config.format != "auto":
        name = _meant(config.format, formats)
        _refuse(name, f"data.format is {config.format!r}", formats)
        return tuple(shape for shape in _shapes(config, extra) if shape.name == name)
    keys = [(name, key) for name, keys in _KEYS.items() for key in keys if getattr(config, key) != _DEFAULTS[key].default]
    asked = {_meant(name, formats): key for name, key in keys}
    for name, key in asked.items():
        # A labelled row has a text too.
        if name != "text" or not set(_LABELLED).intersection(formats):
            _refuse(name, f"data.{key} is set", formats)
    shapes = [shape for shape in _shapes(config, extra) if shape.name in formats]
    wanted = [shape for name in asked for shape in shapes if shape.name == name]
    return tuple(wanted or shapes)


def _meant(name: str, formats: Sequence[str]) -> str:
    """Name the shape that is asked for by a name or a key: with labels, the one that the task takes."""
    return next((each for each in _LABELLED if each in formats), name) if name == "labelled" else name


def _refuse(name: str, asked: str, formats: Sequence[str]) -> None:
    if name not in formats:
        raise ConfigError(f"{asked}, and the task does not learn from {name} rows", hint=f"it takes: {', '.join(formats)}")


def _shapes(config: DataConfig, extra: tuple[str, ...]) -> Iterable[Shape]:
    labels = config.label_field or ("label", "labels")
    for label in [labels] if isinstance(config.label_field, tuple) else [(each,) for each in _listed(labels)]:
        for name in ("labelled", "scored"):
            yield Shape(name, (config.text_field, *label), extra)
    tokens = "tokens" if config.text_field == _DEFAULTS["text_field"].default else config.text_field
    for tags in _listed(config.label_field or ("tags", "ner_tags")):
        yield Shape("tokens", (tokens, tags), extra)
    for field in _listed(config.messages_field or ("messages", "conversations")):
        yield Shape("messages", (field,), extra, OPTIONAL)
    # A text beside turns or an instruction is mostly the same, written out.
    yield Shape("instruction", (config.instruction_field, config.output_field), extra, (config.input_field,))
    yield Shape("text", (config.text_field,), extra)
    yield Shape("prompt-completion", (config.prompt_field, config.completion_field), extra)


def _listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _fitted(shape: Shape, row: Mapping[str, Any], columns: Iterable[str], formats: Sequence[str]) -> Shape | None:
    if any(column not in row for column in columns):
        return None
    if shape.name == "prompt-completion" and "messages" in formats and all(type(row[each]) is list for each in shape.fields):
        return attrs.evolve(shape, name="messages", optional=OPTIONAL)
    return shape


def _union(rows: Iterable[Located]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for each in rows for column in each.row))
