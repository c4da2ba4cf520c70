"""Conversations as token ids, with labels on what the assistant says and on nothing else."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import attrs

from smolora_core.batches.padding import IGNORED
from smolora_core.batches.tokens import token_ids
from smolora_core.components import Drop, Encoded
from smolora_core.data.chat.spans import REMEDY, UnwritableError, WrittenChat, write
from smolora_core.data.chat.templates import plain_template
from smolora_core.data.formats.conversation import Conversation


@attrs.frozen
class _Sequence:
    """Token ids, and the stretches of them that are trained: first, behind the last, and whether the end is learned."""

    ids: list[int]
    stretches: tuple[tuple[int, int, bool], ...]


def encode_chats(conversations: Sequence[Conversation], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
    """Tokenise conversations, and label what their assistant says.

    Args:
        conversations: any number; they are written first, and tokenised in one call.
        tokenizer: its chat template writes them, and where it has none, ours.
        max_length: tokens in a sequence; what is longer is cut at its end.

    Returns:
        For each conversation one sequence, or several where the template writes earlier turns differently; or why it is left
        out: the template fails on it or cannot be told apart from what is said, or the prompt leaves no room.
    """
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    ends = tuple({*tokenizer.all_special_tokens, *added})
    template = None if tokenizer.chat_template or not conversations else plain_template(tokenizer)
    written: list[list[WrittenChat] | Drop] = []
    for conversation in conversations:
        try:
            written.append(write(conversation, tokenizer, template, ends))
        except UnwritableError as unfit:
            written.append(Drop(str(unfit)))
    sequences = _tokenised([each for found in written if not isinstance(found, Drop) for each in found], tokenizer)
    return [found if isinstance(found, Drop) else _encoded([next(sequences) for _ in found], max_length) for found in written]


def _tokenised(texts: Sequence[WrittenChat], tokenizer: Any) -> Iterator[_Sequence | None]:
    """Tokenise all texts in one call; None for one whose trained stretches do not begin and end with a token."""
    if not texts:
        return
    if not tokenizer.is_fast:
        for each, ids in zip(texts, token_ids(tokenizer, [each.text for each in texts], special=False), strict=True):
            yield _in_pieces(each, ids, tokenizer)
        return
    found = tokenizer(
        [each.text for each in texts],
        # The template has written them.
        add_special_tokens=False,
        return_attention_mask=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    for each, ids, offsets in zip(texts, found["input_ids"], found["offset_mapping"], strict=True):
        yield _aligned(each, ids, offsets, tokenizer) or _in_pieces(each, ids, tokenizer)


def _aligned(written: WrittenChat, ids: list[int], offsets: list[tuple[int, int]], tokenizer: Any) -> _Sequence | None:
    """Find the tokens of each trained stretch; None if a token straddles a border of one.

    A tokenizer may leave the space before a word out of the word's offsets, though it is in the token. So a token counts from
    where the one before it ends.
    """
    ends = list(accumulate((end for _, end in offsets), max))
    stretches = []
    for span in written.spans:
        first = bisect_right(ends, span.start)
        last = bisect_left(ends, span.end)
        if last == len(ends):
            return None
        # Some special tokens swallow the white space after them: at the start of an answer, and at its end.
        if (ends[first - 1] if first else 0) != span.start:
            if not (written.text[span.start : ends[first]].isspace() and ids[first] in tokenizer.added_tokens_decoder):
                return None
            first = bisect_right(ends, ends[first])
        if ends[last] > span.tail:
            return None
        behind = bisect_right(ends, ends[last])
        for index in (first, behind):
            if index < len(ids) and offsets[index][0] > (ends[index - 1] if index else 0) and not _leads(ids[index], tokenizer):
                return None
        stretches.append((first, behind, span.closed))
    return _Sequence(ids, tuple(stretches))


def _leads(token: int, tokenizer: Any) -> bool:
    """Whether a token begins with the space that its offsets leave out, rather than the one before it ending with it."""
    return str(tokenizer.convert_ids_to_tokens(token)).startswith(("Ġ", "▁", " "))


def _in_pieces(written: WrittenChat, whole: list[int], tokenizer: Any) -> _Sequence | None:
    """Tokenise what is trained and what is not apart; None if that makes another text."""
    text = written.text
    borders = [0, *chain.from_iterable((span.start, span.end) for span in written.spans), len(text)]
    pieces = [text[start:end] for start, end in pairwise(borders)]
    found = [token_ids(tokenizer, [piece], special=False)[0] if piece else [] for piece in pieces]
    ids = list(chain.from_iterable(found))
    if _decoded(ids, tokenizer) != _decoded(whole, tokenizer):
        return None
    places = list(accumulate(map(len, found)))
    # Every second piece is trained.
    stretches = zip(places[::2], places[1::2], written.spans, strict=False)
    return _Sequence(ids, tuple((first, behind, span.closed) for first, behind, span in stretches))


def _decoded(ids: list[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encoded(sequences: Sequence[_Sequence | None], max_length: int) -> Encoded | Drop:
    made, supervised, lost, open_ended, prompts = [], 0, 0, 0, []
    for sequence in sequences:
        if sequence is None:
            return Drop(f"a token straddles the border of a turn; {REMEDY}")
        ids = sequence.ids[:max_length]
        labels = [IGNORED] * len(ids)
        learned = 0
        for first, behind, closed in sequence.stretches:
            # The first token of a sequence is not predicted.
            first, end = max(first, 1), min(behind, max_length)
            if first < end:
                labels[first:end] = ids[first:end]
                learned += end - first
                open_ended += not (closed and end == behind)
        if learned:
            made.append({"input_ids": ids, "labels": labels})
            lost += len(sequence.ids) - len(ids)
        elif sequence.stretches and (prompt := sequence.stretches[0][0]) >= max_length:
            prompts.append(prompt)
            lost += len(sequence.ids)
        supervised += learned
    if made:
        return Encoded(tuple(made), supervised, lost, open_ended)
    if prompts:
        return Drop(f"the prompt fills data.max_seq_length {max_length}", size=max(prompts))
    return Drop("the chat template writes nothing that is trained")
