"""Steps that leave out what was there before."""

import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolora_core import DatasetError, Drop, PluginError

REPEATED = Drop("repeats an earlier row")
SIMILAR = Drop("resembles an earlier row")
LONG = "The film was good and long, and a cat sat on the mat all the way through, which we liked. "

needs_datasketch = pytest.mark.skipif(find_spec("datasketch") is None, reason="needs smolora[dedup]")


def kept(results):
    return [not isinstance(result, Drop) for result in results]


def test_the_first_of_equal_rows_stays(apply):
    rows = [{"a": 1, "b": [None]}, {"a": 2, "b": [None]}, {"b": [None], "a": 1}, {"a": 1}]
    assert apply("dedup", *rows) == [rows[0], rows[1], REPEATED, rows[3]]


def test_rows_are_equal_by_the_columns_that_are_named(apply):
    rows = [{"text": "a", "id": 1}, {"text": "a", "id": 2}, {"text": "b", "id": 1}]
    assert kept(apply("dedup", *rows, fields=["text"])) == [True, False, True]


def test_columns_are_told_apart(apply):
    rows = [{"a": "x", "b": ""}, {"a": "", "b": "x"}]
    assert kept(apply("dedup", *rows, fields=["a", "b"])) == [True, True]


def test_a_step_made_anew_remembers_nothing(apply):
    row = {"text": "a"}
    assert apply("dedup", row) == apply("dedup", row) == [row]


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.characters() | st.integers(0, 2) | st.none()), max_size=12))
def test_exactly_the_repeated_rows_go(apply, rows):
    assert kept(apply("dedup", *rows)) == [row not in rows[:number] for number, row in enumerate(rows)]


@needs_datasketch
@pytest.mark.parametrize(
    "text",
    [LONG, LONG.upper(), LONG.replace(" ", "\n  "), LONG + "!"],
    ids=["the same", "other case", "other white space", "a character more"],
)
def test_a_text_that_resembles_an_earlier_one_goes(apply, text):
    assert kept(apply("near-dedup", {"text": LONG}, {"text": text})) == [True, False]


@needs_datasketch
def test_what_is_similar_is_a_matter_of_the_threshold(apply):
    rows = {"text": LONG}, {"text": LONG[:70] + LONG.upper()[-20:] + "It rained a little."}
    assert kept(apply("near-dedup", *rows, threshold=0.9)) == [True, True]
    assert kept(apply("near-dedup", *rows, threshold=0.5)) == [True, False]


@needs_datasketch
@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.999])
def test_a_text_that_is_the_same_goes_at_every_threshold(apply, threshold):
    assert apply("near-dedup", {"text": LONG}, {"text": LONG}, threshold=threshold)[1] == SIMILAR


@needs_datasketch
def test_only_the_columns_that_are_named_are_compared(apply):
    rows = {"text": LONG, "by": "me"}, {"text": LONG, "by": "somebody else, who wrote a good deal more about it"}
    assert kept(apply("near-dedup", *rows)) == [True, True]
    assert kept(apply("near-dedup", *rows, fields=["text"])) == [True, False]


@needs_datasketch
def test_conversations_are_compared_by_their_turns(apply):
    rows = [{"messages": [{"role": "user", "content": text}]} for text in (LONG, "why?", LONG)]
    assert kept(apply("near-dedup", *rows)) == [True, True, False]


@needs_datasketch
def test_a_row_without_text_cannot_be_compared(apply):
    with pytest.raises(DatasetError) as caught:
        apply("near-dedup", {"text": "a", "stars": 4}, fields=["stars"])
    assert str(caught.value) == "has no text to compare; it has: text, stars"


def test_what_to_install_is_said_where_the_library_is_missing(step, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(PluginError) as caught:
        step("near-dedup")
    assert str(caught.value) == 'near-dedup needs datasketch, which is not installed; pip install "smolora[dedup]"'
