"""Conversations in one form: what data sets call roles, contents and calls, and what is said of a turn that cannot be used."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolora_core.data.formats.conversation import Conversation, read_conversation
from smolora_core.errors import Problem

WHERE = "rows.jsonl:7"


def read(*turns: Any, **columns: Any) -> Conversation | Problem:
    return read_conversation({"messages": list(turns), **columns}, ["messages"], WHERE)


def conversation(*turns: Any, **columns: Any) -> Conversation:
    found = read(*turns, **columns)
    assert isinstance(found, Conversation), found
    return found


QUESTION = {"role": "user", "content": "why?"}
ANSWER = {"role": "assistant", "content": "so"}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("system", "system"),
        ("developer", "developer"),
        ("user", "user"),
        ("human", "user"),
        ("Human", "user"),
        ("tool", "tool"),
        ("function", "tool"),
        ("observation", "tool"),
        ("ipython", "tool"),
        ("assistant", "assistant"),
        ("gpt", "assistant"),
        ("model", "assistant"),
        ("bot", "assistant"),
        ("chatgpt", "assistant"),
    ],
)
@pytest.mark.parametrize(("who", "what"), [("role", "content"), ("from", "value"), ("role", "value"), ("from", "content")])
def test_a_turn_has_a_role_and_a_content_whatever_they_are_called(name: str, role: str, who: str, what: str) -> None:
    assert conversation({who: name, what: "hm"}, ANSWER).messages[0] == {"role": role, "content": "hm"}


def test_keys_without_a_value_are_left_out_and_others_are_kept() -> None:
    turn = {"role": "assistant", "content": "so", "reasoning_content": "hm", "name": None, "tool_calls": None}
    assert conversation(turn).messages == ({"role": "assistant", "content": "so", "reasoning_content": "hm"},)


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "so"}, " it", {"type": "text", "text": " is", "image": None}]
    assert conversation({"role": "assistant", "content": parts}).messages[0]["content"] == "so it is"


@pytest.mark.parametrize(
    "call",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": '{"at": 1}'}}]},
        {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"at": 1}}}]},
        {"role": "assistant", "tool_calls": [{"name": "look", "arguments": {"at": 1}}]},
        {"role": "assistant", "tool_calls": '[{"name": "look", "arguments": {"at": 1}}]'},
        {"role": "assistant", "function_call": {"name": "look", "arguments": '{"at": 1}'}},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": 1}}'},
    ],
    ids=["JSON arguments", "OpenAI", "flat", "JSON calls", "function_call of a turn", "function_call as a role"],
)
def test_a_call_of_a_tool_is_an_object_with_a_name_and_arguments(call: dict[str, Any]) -> None:
    assert conversation(QUESTION, call).messages[1] == {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {"at": 1}}}],
    }


def test_the_turns_of_the_assistant_are_trained_unless_they_say_otherwise() -> None:
    turns = [ANSWER, {**ANSWER, "weight": 0}, {**ANSWER, "weight": 1}, {**ANSWER, "train": False}]
    found = conversation({"role": "system", "content": "hm"}, QUESTION, *turns)
    assert found.trained == (False, False, True, False, True, False)
    assert all(set(message) == {"role", "content"} for message in found.messages)


def test_of_several_columns_the_last_is_trained() -> None:
    row = {"prompt": [QUESTION, ANSWER, QUESTION], "completion": [ANSWER]}
    found = read_conversation(row, ["prompt", "completion"], WHERE)
    assert isinstance(found, Conversation)
    assert (len(found.messages), found.trained) == (4, (False, False, False, True))


@pytest.mark.parametrize("tools", [[{"name": "look"}], '[{"name": "look"}]'])
def test_tools_and_settings_are_objects_or_json(tools: Any) -> None:
    found = conversation(QUESTION, ANSWER, tools=tools, chat_template_kwargs='{"thinking": false, "other": null}')
    assert (found.tools, found.template_kwargs) == (({"name": "look"},), {"thinking": False})


@pytest.mark.parametrize(("first", "count"), [(QUESTION, 3), ({"role": "system", "content": "be kind"}, 2)])
def test_a_system_column_is_the_first_turn_where_there_is_none(first: dict[str, Any], count: int) -> None:
    found = conversation(first, ANSWER, system="be short")
    assert (len(found.messages), found.messages[0]["role"], found.trained[-1]) == (count, "system", True)


ROLES = (
    "system, developer, user, human, assistant, gpt, model, bot, chatgpt, tool, function, observation, ipython, function_call"
)
DROP = "set data.on_bad_row to drop"


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ("why?", f"must be an object with role and content, got str 'why?'; {DROP}"),
        ({"content": "so"}, "has no role; its keys: content"),
        ({"role": "robot", "content": "so"}, f"has an unknown role, 'robot'; known: {ROLES}"),
        ({"role": 3, "content": "so"}, f"has an unknown role, int 3; known: {ROLES}"),
        ({"role": "user"}, "has no content; its keys: role"),
        ({"role": "assistant", "content": None}, "has no content; its keys: role, content"),
        ({"role": "user", "content": 3}, f"content must be text, got int 3; {DROP}"),
        (
            {"role": "user", "content": [{"type": "image"}]},
            f"has a content part of type 'image'; only text is supported; {DROP}",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, f"a text part must contain text, got null; {DROP}"),
        ({"role": "user", "content": "\ud800"}, f"column 'messages' contains a lone surrogate, '\\ud800'; {DROP}"),
        ({**ANSWER, "weight": 0.5}, f"weight must be 0 or 1, got float 0.5; {DROP}"),
        ({**ANSWER, "train": "no"}, f"train must be true or false, got str 'no'; {DROP}"),
        ({**ANSWER, "tool_calls": "look"}, f"tool_calls must be a list, got str 'look'; {DROP}"),
        ({**ANSWER, "tool_calls": [{}]}, f"a tool call must have a name, got dict {{}}; {DROP}"),
        (
            {**ANSWER, "tool_calls": [{"name": "look", "arguments": "at"}]},
            f"the arguments of 'look' must be an object, got str 'at'; {DROP}",
        ),
        ({"from": "function_call", "value": "look"}, f"a tool call must have a name, got str 'look'; {DROP}"),
        ({**ANSWER, ("a", "b"): 1}, f"is not JSON-serialisable; {DROP}"),
    ],
)
def test_a_turn_that_cannot_be_used_is_named_by_its_number(turn: Any, message: str) -> None:
    assert str(read(QUESTION, turn)) == f"rows.jsonl:7 message 2 {message}"


def test_a_turn_of_several_columns_is_named_with_its_column() -> None:
    found = read_conversation({"prompt": [QUESTION], "completion": [{}]}, ["prompt", "completion"], WHERE)
    assert str(found) == "rows.jsonl:7 message 1 of 'completion' has no role; its keys: "


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "column 'messages' must be a list of messages, got list []"),
        ({"messages": None}, "column 'messages' must be a list of messages, got null"),
        ({"messages": "why?"}, "column 'messages' must be a list of messages, got str 'why?'"),
        ({"messages": [QUESTION]}, "column 'messages' has no assistant turn to train on"),
        ({"messages": [{**ANSWER, "weight": 0}]}, "column 'messages' has no assistant turn to train on"),
        ({"messages": [{**ANSWER, "content": " "}]}, "column 'messages' has nothing to train on"),
        (
            {"messages": [ANSWER], "tools": "look"},
            "column 'tools' must be a list of objects, or JSON text of one, got str 'look'",
        ),
        (
            {"messages": [ANSWER], "tools": ["look"]},
            "column 'tools' must be a list of objects, or JSON text of one, got list ['look']",
        ),
        (
            {"messages": [ANSWER], "chat_template_kwargs": [1]},
            "column 'chat_template_kwargs' must be an object, or JSON text of one, got list [1]",
        ),
        ({"messages": [ANSWER], "system": 3}, "column 'system' must be text, got int 3"),
        ({"messages": [ANSWER], "system": "\ud800"}, "column 'system' contains a lone surrogate, '\\ud800'"),
    ],
)
def test_a_conversation_that_cannot_be_used_is_a_problem_of_its_row(row: dict[str, Any], message: str) -> None:
    assert str(read_conversation(row, ["messages"], WHERE)) == f"rows.jsonl:7 {message}; {DROP}"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
keys = st.sampled_from(
    ["role", "from", "content", "value", "tool_calls", "function_call", "weight", "train", "type", "text", "name"]
)
words = st.sampled_from(["user", "gpt", "function_call", "text", "[]", "{}", '{"name": "a"}', "[[]]"])
values = st.recursive(
    scalars | words, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
columns = st.dictionaries(st.sampled_from(["tools", "chat_template_kwargs", "system"]), values, max_size=3)


@given(turns=values | st.lists(st.dictionaries(keys, values, max_size=5), max_size=4), further=columns)
@settings(max_examples=300, deadline=None)
def test_whatever_a_row_holds_is_a_conversation_or_a_problem(turns: Any, further: dict[str, Any]) -> None:
    found = read_conversation({"messages": turns, **further}, ["messages"], WHERE)
    assert isinstance(found, Problem) or any(found.trained)
