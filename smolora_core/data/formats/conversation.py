"""Read conversations from the many forms that data sets use into the one that chat templates take."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from smolora_core.data.sources.located import DROP, describe, from_json, misfit, text_problem
from smolora_core.errors import Problem

OPTIONAL = ("tools", "chat_template_kwargs", "system")
"""Columns that a row may have in addition to its conversation."""

_ROLES = {
    "system": "system",
    "developer": "developer",
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
    "function_call": "assistant",
}


@attrs.frozen
class Conversation:
    """Messages in the form that chat templates take.

    Attributes:
        messages: dicts with `role`, `content` or `tool_calls`, and any other keys that the row has.
        trained: whether each message is supervised; only the assistant's are.
        tools: schemas of the functions that may be called.
        template_kwargs: further variables for the chat template.

    Example:
        >>> row = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
        >>> read_conversation(row, ["conversations"], "rows.jsonl:1").messages[1]
        {'role': 'assistant', 'content': 'So.'}
    """

    messages: tuple[dict[str, Any], ...]
    trained: tuple[bool, ...]
    tools: tuple[dict[str, Any], ...] = ()
    template_kwargs: dict[str, Any] = attrs.field(factory=dict)


class _MessageError(Exception):
    """What is wrong with a message, and the hint if it is not `DROP`."""


def read_conversation(row: Mapping[str, Any], columns: Sequence[str], where: str) -> Conversation | Problem:
    """Read the conversation of a row, or report why that is impossible.

    Args:
        row: the row; it may have any of the `OPTIONAL` columns.
        columns: the columns whose lists of messages make up the conversation, in order. The assistant's turns are trained in
            the last column only, unless they have `weight: 0` or `train: false`.
        where: the row's place.
    """
    messages: list[dict[str, Any]] = []
    trained: list[bool] = []
    for column in columns:
        if not isinstance(row[column], list | tuple):
            return misfit(column, "a list of messages", row[column], where)
        for number, turn in enumerate(row[column], start=1):
            place = f"{where} message {number}" + (f" of {column!r}" if len(columns) > 1 else "")
            try:
                message, is_trained = _message(turn)
                problem = text_problem(column, _as_json(message), place)
            except _MessageError as error:
                problem = Problem(str(error.args[0]), where=place, hint=error.args[1] if error.args[1:] else DROP)
            if problem:
                return problem
            messages.append(message)
            trained.append(is_trained and column == columns[-1])
    if not messages:
        return misfit(columns[-1], "a list of messages", row[columns[-1]], where)
    if not any(trained):
        return Problem(f"column {columns[-1]!r} has no assistant turn to train on", where=where, hint=DROP)
    answers = (message for message, is_trained in zip(messages, trained, strict=True) if is_trained)
    if not any(message.get("tool_calls") or message.get("content", "").strip() for message in answers):
        return Problem(f"column {columns[-1]!r} has nothing to train on", where=where, hint=DROP)
    return _with_optional(row, messages, trained, where)


def _with_optional(
    row: Mapping[str, Any], messages: list[dict[str, Any]], trained: list[bool], where: str
) -> Conversation | Problem:
    """Add the optional columns to the messages."""
    tools, settings = from_json(row.get("tools")) or (), from_json(row.get("chat_template_kwargs")) or {}
    system = row.get("system")
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        return misfit("tools", "a list of objects, or JSON text of one", row["tools"], where)
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        return misfit("chat_template_kwargs", "an object, or JSON text of one", row["chat_template_kwargs"], where)
    if system is not None and not isinstance(system, str):
        return misfit("system", "text", system, where)
    # Arrow gives every row the keys of all rows, with nulls.
    settings = {key: value for key, value in settings.items() if value is not None}
    for column, value in zip(OPTIONAL, (tools, settings, system), strict=True):
        try:
            problem = text_problem(column, _as_json(value), where) if value else None
        except _MessageError:
            return misfit(column, "JSON-serialisable", value, where)
        if problem:
            return problem
    if system and messages[0]["role"] not in ("system", "developer"):
        messages, trained = [{"role": "system", "content": system}, *messages], [False, *trained]
    return Conversation(tuple(messages), tuple(trained), tuple(tools), settings)


def _message(turn: Any) -> tuple[dict[str, Any], bool]:
    """Normalise one turn; return it and whether it is trained."""
    if not isinstance(turn, Mapping):
        raise _MessageError(f"must be an object with role and content, got {describe(turn)}")
    # Arrow gives every turn the keys of all turns, with nulls.
    rest = {key: value for key, value in turn.items() if value is not None}
    is_trained = _is_trained(rest.pop("weight", 1), rest.pop("train", True))
    named, content = rest.pop("from", None), rest.pop("value", None)
    named, content = rest.pop("role", named), rest.pop("content", content)
    role = _ROLES.get(named.lower()) if isinstance(named, str) else None
    if named is None:
        raise _MessageError("has no role", f"its keys: {', '.join(map(str, turn))}")
    if role is None:
        raise _MessageError(f"has an unknown role, {describe(named).removeprefix('str ')}", f"known: {', '.join(_ROLES)}")
    calls = from_json(rest.pop("tool_calls", None)) or []
    if "function_call" in rest:
        calls = [rest.pop("function_call")]
    if str(named).lower() == "function_call":
        calls, content = from_json(content), None
        calls = calls if isinstance(calls, list) else [calls]
    if content is None and not calls:
        raise _MessageError("has no content", f"its keys: {', '.join(map(str, turn))}")
    message: dict[str, Any] = {"role": role}
    if content is not None:
        message["content"] = _text(content)
    if calls:
        message["tool_calls"] = _calls(calls)
    return {**message, **rest}, is_trained and role == "assistant"


def _is_trained(weight: Any, train: Any) -> bool:
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise _MessageError(f"weight must be 0 or 1, got {describe(weight)}")
    if not isinstance(train, bool):
        raise _MessageError(f"train must be true or false, got {describe(train)}")
    return bool(weight) and train


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise _MessageError(f"content must be text, got {describe(content)}")
    return "".join(map(_part, content))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind != "text":
        raise _MessageError(f"has a content part of type {kind!r}; only text is supported")
    if not isinstance(part.get("text"), str):
        raise _MessageError(f"a text part must contain text, got {describe(part.get('text'))}")
    return str(part["text"])


def _calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise _MessageError(f"tool_calls must be a list, got {describe(calls)}")
    return [_call(call) for call in calls]


def _call(call: Any) -> dict[str, Any]:
    """Normalise a tool call to OpenAI's form, but with its arguments as an object, as most templates expect."""
    outer = {key: value for key, value in call.items() if value is not None} if isinstance(call, Mapping) else {}
    inner = outer.pop("function", None)
    if inner is None:
        inner = {key: outer.pop(key) for key in ("name", "arguments") if key in outer}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _MessageError(f"a tool call must have a name, got {describe(call)}")
    arguments = inner.get("arguments")
    decoded = {} if arguments in (None, "") else from_json(arguments)
    if not isinstance(decoded, Mapping):
        raise _MessageError(f"the arguments of {inner['name']!r} must be an object, got {describe(arguments)}")
    return {"type": "function", **outer, "function": {**inner, "arguments": decoded}}


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        raise _MessageError("is not JSON-serialisable") from None
