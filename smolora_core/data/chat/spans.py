"""Conversations as text, and which stretches of it are trained.

A turn of the assistant is what follows the prompt that a model meets there: the text of the turns before it, with the start of
an answer. `{% generation %}` in a chat template says so itself; without it, the turn is the difference between two renderings,
and both must be beginnings of the whole. A template that writes earlier turns otherwise once later ones are there (Qwen 3
leaves out their thoughts) gives a text for each trained turn, as the model meets it.
"""

import json
from collections.abc import Sequence
from typing import Any

import attrs

from smolora_core.data.chat.templates import first_line, render
from smolora_core.data.formats.conversation import Conversation

REMEDY = "put {% generation %} markers into it, or choose another in data.chat_template"
"""What a person can do about a chat template whose answers cannot be told apart from the rest."""


@attrs.frozen
class Span:
    """A stretch of text that is trained.

    Attributes:
        start: its first character.
        end: behind its last.
        closed: whether it ends with a special token, so that the model learns to stop.
        tail: behind the white space after that token, which belongs to the turn and is not trained.
    """

    start: int
    end: int
    closed: bool
    tail: int


@attrs.frozen
class WrittenChat:
    """A text that a chat template wrote, and what of it is trained."""

    text: str
    spans: tuple[Span, ...]


class UnwritableError(Exception):
    """Why a conversation is left out; the same words for all that leave for it."""


def write(conversation: Conversation, tokenizer: Any, template: str | None, ends: tuple[str, ...]) -> list[WrittenChat]:
    """Write a conversation, in as many texts as its template needs, and find what of them is trained.

    Args:
        conversation: what is said.
        tokenizer: whose special tokens the template may write.
        template: the chat template; left out, the tokenizer's.
        ends: special tokens, any of which may end a turn.

    Raises:
        UnwritableError: the template fails, or leaves calls of tools out, or does not show where an answer begins.
    """
    messages, tools = conversation.messages, list(conversation.tools) or None

    def rendered(turns: Sequence[dict[str, Any]], *, prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        try:
            return render(tokenizer, turns, template=template, tools=tools, prompt=prompt, **conversation.template_kwargs)
        except Exception as error:
            # A template is somebody's code, and made for some orders of turns: it may raise anything.
            raise UnwritableError(f"the chat template refuses it ({first_line(error)})") from error

    whole, marked = rendered(messages)
    for message in messages:
        if message["role"] != "assistant" and not _says(whole, message["content"]):
            raise UnwritableError(f"the chat template leaves out what a turn of the {message['role']} says")
        silent = {key: value for key, value in message.items() if key != "tool_calls"}
        if (
            silent != message
            and rendered(
                [{**silent, "content": silent.get("content") or ""} if each is message else each for each in messages]
            )[0]
            == whole
        ):
            raise UnwritableError("the chat template leaves out tool calls")
    if tools and not all(tool.get("function", tool).get("name", "") in whole for tool in tools):
        raise UnwritableError("the chat template leaves out the tools")
    trained = [index for index, learned in enumerate(conversation.trained) if learned]
    if (spans := _marked(marked, conversation)) is not None:
        return [_written(whole, spans, ends)]
    turns = [(rendered(messages[:index], prompt=True)[0], rendered(messages[: index + 1])[0]) for index in trained]
    if not all(through.startswith(before) for before, through in turns):
        raise UnwritableError(f"the chat template does not begin an answer as its prompt ends; {REMEDY}")
    if all(whole.startswith(through) for _, through in turns):
        return [_written(whole, [(len(before), len(through)) for before, through in turns], ends)]
    return [_written(through, [(len(before), len(through))], ends) for before, through in turns]


def _says(text: str, content: str | None) -> bool:
    """Whether a text holds what was said, as it was said or as JSON."""
    said = (content or "").strip()
    return any(spelt in text for spelt in (said, json.dumps(said)[1:-1], json.dumps(said, ensure_ascii=False)[1:-1]))


def _marked(marked: list[tuple[int, int]], conversation: Conversation) -> list[tuple[int, int]] | None:
    """Choose the stretches that are trained of those that the template marks; None if it does not say whose they are."""
    stretches: list[tuple[int, int]] = []
    for start, end in marked:
        if stretches and stretches[-1][1] == start:
            stretches[-1] = (stretches[-1][0], end)
        elif start < end:
            stretches.append((start, end))
    answers = [
        learned
        for message, learned in zip(conversation.messages, conversation.trained, strict=True)
        if message["role"] == "assistant"
    ]
    if all(answers):
        return stretches or None
    if len(stretches) != len(answers):
        return None
    return [stretch for stretch, learned in zip(stretches, answers, strict=True) if learned]


def _written(text: str, spans: Sequence[tuple[int, int]], ends: tuple[str, ...]) -> WrittenChat:
    return WrittenChat(text, tuple(_span(text, start, end, ends) for start, end in spans if start < end))


def _span(text: str, start: int, end: int, ends: tuple[str, ...]) -> Span:
    stop = start + len(text[start:end].rstrip())
    if text.endswith(ends, start, stop):
        return Span(start, stop, True, end)
    return Span(start, end, False, end)
