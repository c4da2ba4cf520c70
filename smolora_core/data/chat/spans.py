"""Render conversations as text, and find the spans of it that are supervised.

An assistant turn is what the model would generate after its prompt: the turns before it and the generation prompt. A chat
template can mark the turns with `{% generation %}`. Without markers a turn is the difference between two renderings, which must
both be prefixes of the whole. A template that rewrites earlier turns once later ones follow (Qwen 3 drops their thoughts) gives
one text per trained turn, as the model would see it.
"""

import json
from collections.abc import Sequence
from typing import Any

import attrs

from smolora_core.data.chat.templates import render
from smolora_core.data.formats.conversation import Conversation
from smolora_core.errors import first_line

REMEDY = "add {% generation %} markers to the chat template, or choose another in data.chat_template"
"""The hint for a chat template whose answers cannot be located."""


@attrs.frozen
class Span:
    """A supervised span of text.

    Attributes:
        start: the index of its first character.
        end: the index after its last character.
        closed: whether it ends with a special token, so that the model learns to stop.
        tail: the index after the white space that follows that token, which belongs to the turn but is not supervised.
    """

    start: int
    end: int
    closed: bool
    tail: int


@attrs.frozen
class RenderedChat:
    """A text that a chat template rendered, and its supervised spans."""

    text: str
    spans: tuple[Span, ...]


class RenderError(Exception):
    """Why a conversation is dropped; the same text for every conversation with the same problem."""


def render_chat(conversation: Conversation, tokenizer: Any, template: str | None, ends: tuple[str, ...]) -> list[RenderedChat]:
    """Render a conversation, as one text if the chat template allows it, and find the supervised spans.

    `ends` are the special tokens that may end a turn.

    Raises:
        RenderError: the template fails, omits content or tool calls, or does not show where an answer starts.
    """
    messages, tools = conversation.messages, list(conversation.tools) or None

    def rendered(turns: Sequence[dict[str, Any]], *, prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        try:
            return render(tokenizer, turns, template=template, tools=tools, prompt=prompt, **conversation.template_kwargs)
        except Exception as error:
            # A template is third-party code, and often supports only some orders of turns: it may raise anything.
            raise RenderError(f"the chat template fails ({first_line(error)})") from error

    whole, marked = rendered(messages)
    for index, message in enumerate(messages):
        if message["role"] != "assistant" and not _contains(whole, message["content"]):
            raise RenderError(f"the chat template omits the content of a {message['role']} turn")
        if "tool_calls" in message:
            without_calls = {key: value for key, value in message.items() if key != "tool_calls"}
            without_calls["content"] = message.get("content") or ""
            if rendered([*messages[:index], without_calls, *messages[index + 1 :]])[0] == whole:
                raise RenderError("the chat template omits tool calls")
    if tools and not all(tool.get("function", tool).get("name", "") in whole for tool in tools):
        raise RenderError("the chat template omits the tools")
    if (spans := _trained_spans(marked, conversation)) is not None:
        return [_with_spans(whole, spans, ends)]
    trained = [index for index, is_trained in enumerate(conversation.trained) if is_trained]
    turns = [(rendered(messages[:index], prompt=True)[0], rendered(messages[: index + 1])[0]) for index in trained]
    if not all(through.startswith(before) for before, through in turns):
        raise RenderError(f"the chat template does not start an answer with its generation prompt; {REMEDY}")
    if all(whole.startswith(through) for _, through in turns):
        return [_with_spans(whole, [(len(before), len(through)) for before, through in turns], ends)]
    return [_with_spans(through, [(len(before), len(through))], ends) for before, through in turns]


def _contains(text: str, content: str | None) -> bool:
    """Whether a text contains the content of a message, verbatim or as JSON."""
    plain = (content or "").strip()
    return any(form in text for form in (plain, json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]))


def _trained_spans(marked: list[tuple[int, int]], conversation: Conversation) -> list[tuple[int, int]] | None:
    """Select the marked spans that are trained; None if they cannot be matched with the assistant's turns."""
    spans: list[tuple[int, int]] = []
    for start, end in marked:
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        elif start < end:
            spans.append((start, end))
    pairs = zip(conversation.messages, conversation.trained, strict=True)
    answers = [is_trained for message, is_trained in pairs if message["role"] == "assistant"]
    if all(answers):
        return spans or None
    if len(spans) != len(answers):
        return None
    return [span for span, is_trained in zip(spans, answers, strict=True) if is_trained]


def _with_spans(text: str, spans: Sequence[tuple[int, int]], ends: tuple[str, ...]) -> RenderedChat:
    return RenderedChat(text, tuple(_span(text, start, end, ends) for start, end in spans if start < end))


def _span(text: str, start: int, end: int, ends: tuple[str, ...]) -> Span:
    stop = start + len(text[start:end].rstrip())
    if text.endswith(ends, start, stop):
        return Span(start, stop, True, end)
    return Span(start, end, False, end)
