import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolora_core.data.sources import Located, open_source
from smolora_core.data.splits import cut_document, hold_out, is_held_out

fractions = st.floats(0, 1, exclude_min=True, exclude_max=True)
rows = st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.none() | st.lists(st.floats()), max_size=4)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.9])
def test_about_the_fraction_is_held_out(fraction):
    held_out = sum(is_held_out({"text": f"row {number}"}, fraction) for number in range(20_000))
    assert held_out / 20_000 == pytest.approx(fraction, abs=0.015)


@pytest.mark.parametrize(
    ("row", "held_out"),
    [({"text": "row 0"}, False), ({"text": "row 4"}, True), ({"n": 1, "text": "día"}, False)],
)
def test_a_row_keeps_its_side_from_release_to_release(row, held_out):
    assert is_held_out(row, 0.1) is held_out


@given(row=rows, fraction=fractions)
def test_equal_rows_share_a_side_whatever_the_order_of_their_columns(row, fraction):
    assert is_held_out(row, fraction) == is_held_out(dict(reversed(row.items())), fraction)


@given(row=rows, fraction=fractions, larger=fractions)
def test_a_larger_fraction_keeps_what_was_held_out(row, fraction, larger):
    assert is_held_out(row, min(fraction, larger)) <= is_held_out(row, max(fraction, larger))


def test_a_row_may_hold_values_that_json_does_not_know():
    assert is_held_out({"bytes": b"x", "half": "\ud800", "set": {1}}, 0.999999) is True


@given(text=st.text(st.sampled_from("ab \n\u2028😀"), max_size=200), fraction=fractions)
def test_no_character_of_a_document_is_lost(text, fraction):
    head, tail = cut_document(Located({"text": text}, "input.txt"), fraction)
    assert head.row["text"] + tail.row["text"] == text
    assert head.where == "input.txt"
    assert tail.where == f"input.txt:{head.row['text'].count(chr(10)) + 1}"


@pytest.mark.parametrize(
    ("text", "fraction", "tail"),
    [
        ("aaaa\nbbbb\ncccc\n", 0.2, "cccc\n"),
        ("aaaa\nbbbb\ncccc\n", 0.4, "bbbb\ncccc\n"),
        ("aaaa\nbbbb\ncccc\n", 1 / 3, "cccc\n"),
        ("aaaaaaaaaa", 0.3, "aaa"),
        ("title\n" + "a" * 94, 0.1, "a" * 10),
        ("a", 0.1, ""),
    ],
    ids=["line break before the cut", "further before", "at the cut", "no line break", "only after a title", "too short"],
)
def test_a_document_is_cut_at_a_line_break_near_the_fraction(text, fraction, tail):
    assert cut_document(Located({"text": text}, "input.txt"), fraction)[1].row["text"] == tail


def test_the_tail_says_its_line_and_keeps_other_columns():
    _, tail = cut_document(Located({"text": "a\n" * 100, "author": "me"}, "input.txt"), 0.25)
    assert tail == Located({"text": "a\n" * 25, "author": "me"}, "input.txt:76")


def test_rows_are_parted_as_they_come():
    def endless():
        number = 0
        while True:
            number += 1
            yield Located({"text": f"row {number}"}, f"a.jsonl:{number}")

    parted = hold_out(endless(), 0.5, documents=False)
    first = [next(parted) for _ in range(100)]
    assert [located.where for located, _ in first] == [f"a.jsonl:{number}" for number in range(1, 101)]
    assert {held_out for _, held_out in first} == {True, False}


def test_documents_are_cut_once_each_and_empty_parts_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.txt").write_text("line\n" * 10)
    (tmp_path / "short.txt").write_text("x")
    source = open_source(["long.txt", "short.txt"])
    parted = [
        (located.where, len(located.row["text"]), held_out)
        for located, held_out in hold_out(source.rows(), 0.1, documents=source.documents)
    ]
    assert parted == [("long.txt", 45, False), ("long.txt:10", 5, True), ("short.txt", 1, False)]
