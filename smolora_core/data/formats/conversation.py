"""Conversations, as many data sets write them, in the one form that chat templates take."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from smolora_core.data.sources.located import DROP, describe, from_json, misfit, text_problem
from smolora_core.errors import Problem

OPTIONAL = ("tools", "chat_template_kwargs", "system")
"""Columns that are read beside a conversation, where a row has them."""

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
    """Turns as a chat template takes them.

    Attributes:
        messages: each with `role`, `content`, perhaps `tool_calls`, and what else the row says of the turn.
        trained: for each message, whether it is learned; only turns of the assistant are.
        tools: schemas of the functions that may be called.
        template_kwargs: further variables of the chat template.

    Example:
        >>> row = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
        >>> read_conversation(row, ["conversations"], "rows.jsonl:1").messages[1]
        {'role': 'assistant', 'content': 'So.'}
    """

    messages: tuple[dict[str, Any], ...]
    trained: tuple[bool, ...]
    tools: tuple[dict[str, Any], ...] = ()
    template_kwargs: dict[str, Any] = attrs.field(factory=dict)


class _UnfitError(Exception):
    """What is wrong with a message, and what would be right."""


def read_conversation(row: Mapping[str, Any], columns: Sequence[str], where: str) -> Conversation | Problem:
    """Take a conversation out of a row, or say why that cannot be.

    Args:
        row: the row; of the columns in `OPTIONAL` it may have any.
        columns: lists of messages that follow each other. The assistant's turns are trained in the last one only, and there
            unless they say `weight: 0` or `train: false`.
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
                message, learned = _message(turn)
                problem = text_problem(column, _spelled(message), place)
            except _UnfitError as unfit:
                problem = Problem(str(unfit.args[0]), where=place, hint=unfit.args[1] if unfit.args[1:] else DROP)
            if problem:
                return problem
            messages.append(message)
            trained.append(learned and column == columns[-1])
    if not messages:
        return misfit(columns[-1], "a list of messages", row[columns[-1]], where)
    if not any(trained):
        return Problem(f"column {columns[-1]!r} has no turn of the assistant to train", where=where, hint=DROP)
    said = (message for message, learned in zip(messages, trained, strict=True) if learned)
    if not any(message.get("tool_calls") or message.get("content", "").strip() for message in said):
        return Problem(f"column {columns[-1]!r} has nothing to train", where=where, hint=DROP)
    return _with_settings(row, messages, trained, where)


def _with_settings(
    row: Mapping[str, Any], messages: list[dict[str, Any]], trained: list[bool], where: str
) -> Conversation | Problem:
    """Add what the optional columns say."""
    tools, settings = from_json(row.get("tools")) or (), from_json(row.get("chat_template_kwargs")) or {}
    system = row.get("system")
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        return misfit("tools", "a list of objects, or that as JSON", row["tools"], where)
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        return misfit("chat_template_kwargs", "an object, or that as JSON", row["chat_template_kwargs"], where)
    if system is not None and not isinstance(system, str):
        return misfit("system", "text", system, where)
    # Arrow gives every row the keys of all rows.
    settings = {key: value for key, value in settings.items() if value is not None}
    for column, value in zip(OPTIONAL, (tools, settings, system), strict=True):
        try:
            problem = text_problem(column, _spelled(value), where) if value else None
        except _UnfitError:
            return misfit(column, "what JSON can hold", value, where)
        if problem:
            return problem
    if system and messages[0]["role"] not in ("system", "developer"):
        messages, trained = [{"role": "system", "content": system}, *messages], [False, *trained]
    return Conversation(tuple(messages), tuple(trained), tuple(tools), settings)


def _message(turn: Any) -> tuple[dict[str, Any], bool]:
    """Bring one turn into form, and say whether it is trained."""
    if not isinstance(turn, Mapping):
        raise _UnfitError(f"must be an object with role and content, is {describe(turn)}")
    # Arrow gives every turn the keys of all turns.
    rest = {key: value for key, value in turn.items() if value is not None}
    learned = _learned(rest.pop("weight", 1), rest.pop("train", True))
    named, spoken = rest.pop("from", None), rest.pop("value", None)
    named, content = rest.pop("role", named), rest.pop("content", spoken)
    role = _ROLES.get(named.lower()) if isinstance(named, str) else None
    if named is None:
        raise _UnfitError("has no role", f"it has: {', '.join(map(str, turn))}")
    if role is None:
        raise _UnfitError(f"has the role {describe(named).removeprefix('str ')}", f"known: {', '.join(_ROLES)}")
    calls = from_json(rest.pop("tool_calls", None)) or []
    if "function_call" in rest:
        calls = [rest.pop("function_call")]
    if str(named).lower() == "function_call":
        calls, content = from_json(content), None
        calls = calls if isinstance(calls, list) else [calls]
    if content is None and not calls:
        raise _UnfitError("has no content", f"it has: {', '.join(map(str, turn))}")
    said = {} if content is None else {"content": _text(content)}
    return {"role": role, **said, **({"tool_calls": _calls(calls)} if calls else {}), **rest}, learned and role == "assistant"


def _learned(weight: Any, train: Any) -> bool:
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise _UnfitError(f"must have weight 0 or 1, has {describe(weight)}")
    if not isinstance(train, bool):
        raise _UnfitError(f"must have train true or false, has {describe(train)}")
    return bool(weight) and train


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise _UnfitError(f"must have text as content, has {describe(content)}")
    return "".join(map(_part, content))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
    if kind != "text":
        raise _UnfitError(f"has a part of kind {kind!r}, and only text is trained")
    if not isinstance(part.get("text"), str):
        raise _UnfitError(f"must have text in a text part, has {describe(part.get('text'))}")
    return str(part["text"])


def _calls(calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list | tuple):
        raise _UnfitError(f"must have a list of tool_calls, has {describe(calls)}")
    return [_call(call) for call in calls]


def _call(call: Any) -> dict[str, Any]:
    """Bring a call of a tool into OpenAI's form, with an object as its arguments: that is what most templates take."""
    outer = {key: value for key, value in call.items() if value is not None} if isinstance(call, Mapping) else {}
    inner = outer.pop("function", None)
    if inner is None:
        inner = {key: outer.pop(key) for key in ("name", "arguments") if key in outer}
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _UnfitError(f"must have a name in a tool call, has {describe(call)}")
    arguments = inner.get("arguments")
    read = {} if arguments in (None, "") else from_json(arguments)
    if not isinstance(read, Mapping):
        raise _UnfitError(f"must have an object as arguments of {inner['name']!r}, has {describe(arguments)}")
    return {"type": "function", **outer, "function": {**inner, "arguments": read}}


def _spelled(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        raise _UnfitError("holds what JSON cannot") from None
