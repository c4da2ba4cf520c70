"""Encode conversations as token ids, with labels on the assistant's turns only."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import attrs

from smolora_core.batches.padding import IGNORED
from smolora_core.batches.tokens import token_ids
from smolora_core.components import Drop, Encoded
from smolora_core.data.chat.spans import REMEDY, RenderedChat, RenderError, render_chat
from smolora_core.data.chat.templates import plain_template
from smolora_core.data.formats.conversation import Conversation


@attrs.frozen
class _Sequence:
    """Token ids, and their supervised spans: start, end (exclusive), and whether an end token closes it."""

    ids: list[int]
    spans: tuple[tuple[int, int, bool], ...]


def encode_chats(conversations: Sequence[Conversation], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
    """Tokenise conversations, and label the assistant's turns.

    Args:
        conversations: the conversations, tokenised in one call.
        tokenizer: the tokenizer; its chat template renders them, or the plain one if it has none.
        max_length: the tokens in a sequence at most; longer ones are truncated.

    Returns:
        For each conversation one sequence, or several if the chat template rewrites earlier turns; or the reason to drop it:
        the template fails or does not show where answers start, or the prompt leaves no room.
    """
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    ends = tuple({*tokenizer.all_special_tokens, *added})
    template = None if tokenizer.chat_template or not conversations else plain_template(tokenizer)
    rendered: list[list[RenderedChat] | Drop] = []
    for conversation in conversations:
        try:
            rendered.append(render_chat(conversation, tokenizer, template, ends))
        except RenderError as error:
            rendered.append(Drop(str(error)))
    sequences = _tokenised([chat for found in rendered if not isinstance(found, Drop) for chat in found], tokenizer)
    return [found if isinstance(found, Drop) else _encoded([next(sequences) for _ in found], max_length) for found in rendered]


def _tokenised(chats: Sequence[RenderedChat], tokenizer: Any) -> Iterator[_Sequence | None]:
    """Tokenise all texts in one call; None for one with a supervised span that does not start and end with a token."""
    texts = [chat.text for chat in chats]
    if not texts:
        return
    if not tokenizer.is_fast:
        for chat, ids in zip(chats, token_ids(tokenizer, texts, special=False), strict=True):
            yield _in_pieces(chat, ids, tokenizer)
        return
    # The template has written the special tokens.
    options = {"add_special_tokens": False, "return_attention_mask": False, "return_offsets_mapping": True, "verbose": False}
    found = tokenizer(texts, **options)
    for chat, ids, offsets in zip(chats, found["input_ids"], found["offset_mapping"], strict=True):
        yield _aligned(chat, ids, offsets, tokenizer) or _in_pieces(chat, ids, tokenizer)


def _aligned(chat: RenderedChat, ids: list[int], offsets: list[tuple[int, int]], tokenizer: Any) -> _Sequence | None:
    """Find the tokens of each supervised span; None if a token crosses one of its boundaries.

    Some tokenizers exclude the space before a word from the word's offsets, though it is in the token. So a token is taken to
    start where the one before it ends.
    """
    ends = list(accumulate((end for _, end in offsets), max))
    spans = []
    for span in chat.spans:
        first = bisect_right(ends, span.start)
        last = bisect_left(ends, span.end)
        if last == len(ends):
            return None
        # Some special tokens swallow the white space after them: at the start of an answer, and at its end.
        if (ends[first - 1] if first else 0) != span.start:
            if not (chat.text[span.start : ends[first]].isspace() and ids[first] in tokenizer.added_tokens_decoder):
                return None
            first = bisect_right(ends, ends[first])
        if ends[last] > span.tail:
            return None
        stop = bisect_right(ends, ends[last])
        for index in (first, stop):
            has_gap = index < len(ids) and offsets[index][0] > (ends[index - 1] if index else 0)
            if has_gap and not _starts_with_space(ids[index], tokenizer):
                return None
        spans.append((first, stop, span.closed))
    return _Sequence(ids, tuple(spans))


def _starts_with_space(token: int, tokenizer: Any) -> bool:
    return str(tokenizer.convert_ids_to_tokens(token)).startswith(("Ġ", "▁", " "))


def _in_pieces(chat: RenderedChat, whole: list[int], tokenizer: Any) -> _Sequence | None:
    """Tokenise the supervised spans and the text between them separately; None if that decodes to another text."""
    text = chat.text
    bounds = [0, *chain.from_iterable((span.start, span.end) for span in chat.spans), len(text)]
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    found = [token_ids(tokenizer, [piece], special=False)[0] if piece else [] for piece in pieces]
    ids = list(chain.from_iterable(found))
    if _decoded(ids, tokenizer) != _decoded(whole, tokenizer):
        return None
    stops = list(accumulate(map(len, found)))
    # Every second piece is supervised.
    spans = zip(stops[::2], stops[1::2], chat.spans, strict=False)
    return _Sequence(ids, tuple((first, stop, span.closed) for first, stop, span in spans))


def _decoded(ids: list[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encoded(sequences: Sequence[_Sequence | None], max_length: int) -> Encoded | Drop:
    encoded, supervised, lost, open_ended, prompts = [], 0, 0, 0, []
    for sequence in sequences:
        if sequence is None:
            return Drop(f"a token crosses the boundary of a turn; {REMEDY}")
        ids = sequence.ids[:max_length]
        labels = [IGNORED] * len(ids)
        labelled = 0
        for first, stop, closed in sequence.spans:
            # The first token of a sequence is never predicted.
            first, end = max(first, 1), min(stop, max_length)
            if first < end:
                labels[first:end] = ids[first:end]
                labelled += end - first
                open_ended += not (closed and end == stop)
        if labelled:
            encoded.append({"input_ids": ids, "labels": labels})
            lost += len(sequence.ids) - len(ids)
        elif sequence.spans and (prompt := sequence.spans[0][0]) >= max_length:
            prompts.append(prompt)
            lost += len(sequence.ids)
        supervised += labelled
    if encoded:
        return Encoded(tuple(encoded), supervised, lost, open_ended)
    if prompts:
        return Drop(f"the prompt fills data.max_seq_length {max_length}", size=max(prompts))
    return Drop("the chat template writes nothing to train on")
