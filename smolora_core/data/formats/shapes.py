"""The shapes of rows, and reading rows of each shape as examples."""

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from smolora_core.data.formats.conversation import Conversation, read_conversation
from smolora_core.data.sources.located import DROP, finite, misfit, text_problem
from smolora_core.errors import Problem, nearest

_to_json = json.JSONEncoder(default=str).encode


@attrs.frozen
class Example:
    """One row as the task sees it.

    Attributes:
        text: the supervised text; empty if there is only a conversation.
        prompt: the unsupervised text before it; None for plain text.
        columns: the values of the columns that the loss needs.
        conversation: the row as a conversation. An instruction has prompt and text too, for tokenizers without a chat template.
        labels: the values of the label columns, in order; for several yes/no columns, a single list with the names of those
            that are yes; for tokens, their tags.
        tokens: the tokens of a pre-tokenised sentence, which `text` joins.
    """

    text: str
    prompt: str | None = None
    columns: dict[str, float] = attrs.field(factory=dict)
    conversation: Conversation | None = None
    labels: tuple[Any, ...] = ()
    tokens: tuple[str, ...] = ()

    def digest(self) -> int:
        """Hash the content to a signed 64-bit integer that is the same in every process and run.

        Columns of the loss do not count: a row with another weight is the same row.
        """
        chat = self.conversation
        turns = [chat.messages, chat.trained, chat.tools, chat.template_kwargs] if chat else None
        content = _to_json([self.prompt, self.text, turns, self.labels])
        return int.from_bytes(blake2b(content.encode(), digest_size=8).digest(), "big", signed=True)


@attrs.frozen
class Shape:
    """How to read the rows of a source.

    Attributes:
        name: the name in `data.format`; `messages` if prompt and completion are lists of messages.
        fields: the columns of the example: the prompt, if any, before the supervised text; a text before its labels; tokens
            before their tags.
        extra: the numeric columns that the loss needs.
        optional: columns that a row may lack.

    Example:
        >>> Shape("text", ("review",)).unread(("id", "review", "stars"))
        ('id', 'stars')
    """

    name: str
    fields: tuple[str, ...]
    extra: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row must have."""
        return (*self.fields, *self.extra)

    def unread(self, columns: Iterable[str]) -> tuple[str, ...]:
        """List the columns that the shape ignores."""
        return tuple(column for column in columns if column not in {*self.columns, *self.optional})

    def read(self, row: dict[str, Any], where: str) -> Example | Problem:
        """Read an example from a row, or report why that is impossible."""
        for column in self.columns:
            if column not in row:
                return missing_column(column, row, where)
        # Whole numbers become floats too, so that a column has the same type in every batch.
        numbers: dict[str, float] = {}
        for column in self.extra:
            number = number_in(row[column])
            if number is None:
                return misfit(column, "a finite number", row[column], where)
            numbers[column] = number
        return _READERS[self.name](self, row, where, numbers)


def missing_column(column: str, present: Iterable[str], where: str) -> Problem:
    """Report a missing column, hinting at the nearest name and at all that are present."""
    names = list(map(str, present))
    hints = filter(None, (nearest(column, names), f"it has: {', '.join(names)}"))
    return Problem(f"has no column {column!r}", where=where, hint=" ".join(hints))


def _read_text(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    for column in shape.fields:
        if problem := _not_text(column, row[column], where):
            return problem
    text = row[shape.fields[-1]]
    if not text.strip():
        return Problem(f"column {shape.fields[-1]!r} has nothing to train on", where=where, hint=DROP)
    return Example(text, row[shape.fields[0]] if len(shape.fields) > 1 else None, numbers)


def _read_instruction(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    example = _read_text(shape, row, where, numbers)
    if isinstance(example, Problem):
        return example
    given = row.get(shape.optional[0])
    if given is not None and (problem := _not_text(shape.optional[0], given, where)):
        return problem
    question = "\n\n".join(filter(None, (example.prompt, given)))
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": example.text})
    return attrs.evolve(example, prompt=f"{question}\n\n", conversation=Conversation(turns, (False, True)))


def _read_messages(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    found = read_conversation(row, shape.fields, where)
    return found if isinstance(found, Problem) else Example("", None, numbers, found)


def _read_labelled(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    column, *labels = shape.fields
    if problem := _not_text(column, row[column], where):
        return problem
    if len(labels) > 1:
        # Multi-label: one yes/no column for each label.
        applies = {label: _YES_NO.get(str(row[label]).strip().lower()) for label in labels}
        if invalid := next((label for label in labels if applies[label] is None), None):
            return misfit(invalid, "0 or 1", row[invalid], where)
        return Example(row[column], None, numbers, labels=([label for label in labels if applies[label]],))
    values = row[labels[0]] if isinstance(row[labels[0]], list) else [row[labels[0]]]
    if not all(isinstance(value, str) or finite(value) is not None for value in values):
        return misfit(labels[0], "text, a number, or a list of them", row[labels[0]], where)
    return Example(row[column], None, numbers, labels=(row[labels[0]],))


def _read_scored(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    column, *labels = shape.fields
    if problem := _not_text(column, row[column], where):
        return problem
    found: list[float] = []
    for label in labels:
        scores = [number_in(each) for each in (row[label] if isinstance(row[label], list) else [row[label]])]
        known = [score for score in scores if score is not None]
        if not known or len(known) < len(scores):
            return misfit(label, "a finite number", row[label], where)
        found += known
    return Example(row[column], None, numbers, labels=tuple(found))


def _read_tokens(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    column, label = shape.fields
    tokens, tags = row[column], row[label]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return misfit(column, "a list of texts", tokens, where)
    if not isinstance(tags, list) or not all(isinstance(tag, str | int) for tag in tags):
        return misfit(label, "a list of tags", tags, where)
    if len(tokens) != len(tags):
        return Problem(f"column {label!r} has {len(tags)} tags for {len(tokens)} tokens", where=where, hint=DROP)
    text = " ".join(tokens)
    return text_problem(column, text, where) or Example(text, None, numbers, labels=tuple(map(str, tags)), tokens=tuple(tokens))


def number_in(value: Any) -> float | None:
    """Convert a number, or its text as in CSV files, to a finite float; None if that is impossible."""
    try:
        return finite(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None


_YES_NO = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}
_READERS: Mapping[str, Callable[[Shape, dict[str, Any], str, dict[str, float]], Example | Problem]] = {
    "text": _read_text,
    "prompt-completion": _read_text,
    "instruction": _read_instruction,
    "messages": _read_messages,
    "labelled": _read_labelled,
    "scored": _read_scored,
    "tokens": _read_tokens,
}


def _not_text(column: str, value: Any, where: str) -> Problem | None:
    return text_problem(column, value, where) if isinstance(value, str) else misfit(column, "text", value, where)
