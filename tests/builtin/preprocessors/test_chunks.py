"""Steps that cut long texts: no character is lost, and no piece is too large."""

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from smolora_core import ConfigError, DatasetError
from smolora_core.data.preprocess import Context

emoji = ["👨‍👩‍👧‍👦", "🏳️‍🌈"]
scraps = st.sampled_from(["the film", " was good", "  ", "\n\n", *emoji, "e\u0301", "שלום", "\x00", "\u2028", "!!!", "日本語"])
texts = st.lists(scraps | st.text(max_size=8), max_size=12).map("".join)
sizes = st.integers(1, 9)


def pieces(apply, name, text, **options):
    (rows,) = apply(name, {"text": text, "label": 1}, **options)
    assert all(row["label"] == 1 for row in rows)
    return [row["text"] for row in rows]


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a b c d e", {"size": 2}, ["a b ", "c d ", "e"]),
        ("  a\n\n b\tc ", {"size": 2}, ["  a\n\n b\t", "c "]),
        ("a b c d e", {"size": 3, "overlap": 1}, ["a b c ", "c d e"]),
        ("a b c d e f", {"size": 3, "overlap": 2}, ["a b c ", "b c d ", "c d e ", "d e f"]),
        ("a b", {"size": 2}, ["a b"]),
        (" ", {"size": 2}, [" "]),
        ("", {"size": 2}, [""]),
    ],
)
def test_words(apply, text, options, expected):
    assert pieces(apply, "chunk-words", text, **options) == expected


@given(text=texts, size=sizes)
def test_pieces_of_words_make_up_the_text(apply, text, size):
    found = pieces(apply, "chunk-words", text, size=size)
    assert "".join(found) == text
    assert all(len(piece.split()) <= size for piece in found)


@given(text=texts, size=sizes, data=st.data())
def test_pieces_that_overlap_hold_the_words_in_their_order(apply, text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    first, *others = (piece.split() for piece in pieces(apply, "chunk-words", text, size=size, overlap=overlap))
    assert [*first, *(word for piece in others for word in piece[overlap:])] == text.split()
    assert all(len(piece) > overlap for piece in others)


def test_tokens(apply, context):
    text = "the film was good and long"
    tokens = context.tokenizer(text)["input_ids"]
    found = pieces(apply, "chunk-tokens", text, size=6)
    assert found == ["the film was good", " and long"]
    assert [context.tokenizer(piece)["input_ids"] for piece in found] == [tokens[:6], tokens[6:]]


def test_tokens_overlap(apply):
    found = pieces(apply, "chunk-tokens", "the film was good and long", size=6, overlap=2)
    assert found == ["the film was good", " good and long"]


@given(text=texts, size=sizes)
@settings(deadline=None)
def test_pieces_of_tokens_make_up_the_text_and_are_not_too_large(apply, context, text, size):
    found = pieces(apply, "chunk-tokens", text, size=size)
    assert "".join(found) == text
    for piece in found:
        # A single character may have more tokens than fit.
        assert len(context.tokenizer(piece)["input_ids"]) <= size or len(piece) == 1


@given(text=texts, size=sizes, data=st.data())
@settings(deadline=None)
def test_pieces_of_tokens_that_overlap_leave_no_gap(apply, text, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    end = 0
    for piece in pieces(apply, "chunk-tokens", text, size=size, overlap=overlap):
        # Somewhere up to the end of the piece before it, and beyond that end.
        start = text.rfind(piece, 0, end + len(piece))
        assert start >= 0
        end = max(end, start + len(piece))
    assert end == len(text)


def test_tokens_without_a_size_fill_a_sequence(apply, context):
    told = Context(context.tokenizer, max_seq_length=8, seed=42)
    (rows,) = apply("chunk-tokens", {"text": "the film was good " * 9}, told=told)
    # One token more ends a text.
    assert max(len(context.tokenizer(row["text"])["input_ids"]) for row in rows) == 7


def test_tokens_that_frame_a_text_take_their_room(apply, context, llama):
    framing = transformers.AutoTokenizer.from_pretrained(llama)
    framing.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    told = Context(framing, max_seq_length=8, seed=42)
    (rows,) = apply("chunk-tokens", {"text": "the film was good " * 9}, told=told)
    assert max(len(framing(row["text"])["input_ids"]) for row in rows) == 7


def test_more_overlap_than_a_sequence_holds_is_refused(apply, context):
    told = Context(context.tokenizer, max_seq_length=8, seed=42)
    with pytest.raises(ConfigError) as caught:
        apply("chunk-tokens", {"text": "a"}, told=told, overlap=7)
    assert str(caught.value) == "overlap must be below the 7 tokens that fit in data.max_seq_length, got 7"


def test_a_tokenizer_that_changes_texts_loses_no_character(apply):
    plain = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    told = Context(transformers.PreTrainedTokenizerFast(tokenizer_object=plain), max_seq_length=8, seed=42)
    (rows,) = apply("chunk-tokens", {"text": "  a  b c\n\nd  "}, told=told, size=2)
    assert [row["text"] for row in rows] == ["  a  b", " c\n\nd  "]


def test_a_tokenizer_that_cannot_place_its_tokens_is_refused(apply):
    class Slow:
        is_fast = False

    with pytest.raises(DatasetError) as caught:
        apply("chunk-tokens", {"text": "a"}, told=Context(Slow(), max_seq_length=8, seed=42), size=2)
    assert str(caught.value) == "the tokenizer has no character offsets of its tokens; use chunk-words"
