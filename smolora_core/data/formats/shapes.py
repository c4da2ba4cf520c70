"""Shapes of rows, and the examples they are read as."""

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from smolora_core.data.formats.conversation import Conversation, read_conversation
from smolora_core.data.sources.located import DROP, finite, misfit, text_problem
from smolora_core.errors import Problem, nearest

_spell = json.JSONEncoder(default=str).encode


@attrs.frozen
class Example:
    """One row as the task sees it.

    Attributes:
        text: what is trained; empty where there is only a conversation.
        prompt: what comes before it and is not trained; None where a row is text only.
        columns: values of the further columns that the loss asked for.
        conversation: the row as turns. An instruction has both: turns for a tokenizer with a chat template, and prompt and
            text for one without.
        labels: values of the label columns, in their order; of several columns that say yes or no, one list of the names of
            those that say yes; the tags of tokens.
        tokens: of a sentence that comes in tokens; the text is all of them.
    """

    text: str
    prompt: str | None = None
    columns: dict[str, float] = attrs.field(factory=dict)
    conversation: Conversation | None = None
    labels: tuple[Any, ...] = ()
    tokens: tuple[str, ...] = ()

    def digest(self) -> int:
        """Make a number of 64 bits that two rows share if they say the same, in every process and run.

        It is signed, as Arrow's int64 is. Columns of the loss do not count: a row with another weight is the same row.
        """
        said = self.conversation
        turns = [said.messages, said.trained, said.tools, said.template_kwargs] if said else None
        spelled = _spell([self.prompt, self.text, turns, self.labels])
        return int.from_bytes(blake2b(spelled.encode(), digest_size=8).digest(), "big", signed=True)


@attrs.frozen
class Shape:
    """How rows of a source are read.

    Attributes:
        name: as `data.format` names it; a prompt and a completion that are lists of messages make `messages`.
        fields: the columns that make the example: what is trained comes last, and a prompt before it; of a labelled row, the
            text and its labels; of tokens, these and their tags.
        extra: columns of numbers that the loss needs besides.
        optional: columns that are read where a row has them.

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
        """Every column a row must have."""
        return (*self.fields, *self.extra)

    def unread(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Say which columns of a row nothing is made of."""
        return tuple(column for column in columns if column not in {*self.columns, *self.optional})

    def read(self, row: dict[str, Any], where: str) -> Example | Problem:
        """Take an example out of a row, or say why that cannot be."""
        for column in self.columns:
            if column not in row:
                return missing_column(column, row, where)
        # Whole numbers become floats too: one column has one type in every batch, whichever values come first.
        numbers: dict[str, float] = {}
        for column in self.extra:
            number = number_in(row[column])
            if number is None:
                return misfit(column, "a finite number", row[column], where)
            numbers[column] = number
        return _READERS[self.name](self, row, where, numbers)


def missing_column(column: str, present: Iterable[str], where: str) -> Problem:
    """Say that a row has no such column, what it may be called there, and which there are."""
    names = list(map(str, present))
    hints = filter(None, (nearest(column, names), f"it has: {', '.join(names)}"))
    return Problem(f"has no column {column!r}", where=where, hint=" ".join(hints))


def _read_text(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    for column in shape.fields:
        if problem := _not_text(column, row[column], where):
            return problem
    text = row[shape.fields[-1]]
    if not text.strip():
        return Problem(f"column {shape.fields[-1]!r} has nothing to train", where=where, hint=DROP)
    return Example(text, row[shape.fields[0]] if len(shape.fields) > 1 else None, numbers)


def _read_instruction(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    example = _read_text(shape, row, where, numbers)
    if isinstance(example, Problem):
        return example
    about = row.get(shape.optional[0])
    if about is not None and (problem := _not_text(shape.optional[0], about, where)):
        return problem
    question = "\n\n".join(filter(None, (example.prompt, about)))
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": example.text})
    return attrs.evolve(example, prompt=f"{question}\n\n", conversation=Conversation(turns, (False, True)))


def _read_messages(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    said = read_conversation(row, shape.fields, where)
    return said if isinstance(said, Problem) else Example("", None, numbers, said)


def _read_labelled(shape: Shape, row: dict[str, Any], where: str, numbers: dict[str, float]) -> Example | Problem:
    column, *labels = shape.fields
    if problem := _not_text(column, row[column], where):
        return problem
    if len(labels) > 1:
        # A column for each label says whether it holds.
        says = {label: _SAYS.get(str(row[label]).strip().lower()) for label in labels}
        if odd := next((label for label in labels if says[label] is None), None):
            return misfit(odd, "0 or 1", row[odd], where)
        return Example(row[column], None, numbers, labels=([label for label in labels if says[label]],))
    values = row[labels[0]] if isinstance(row[labels[0]], list) else [row[labels[0]]]
    if not all(isinstance(value, str) or finite(value) is not None for value in values):
        return misfit(labels[0], "a text, a number, or a list of them", row[labels[0]], where)
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
    """Read a number that may be text, as every value of a CSV file is."""
    try:
        return finite(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None


_SAYS = {"1": True, "true": True, "1.0": True, "0": False, "false": False, "0.0": False}
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
