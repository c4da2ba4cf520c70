"""Steps that choose rows, by their length or by lot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolora_core import Drop
from smolora_core.data.preprocess import Context
from smolora_core.data.splits import is_held_out

ROWS = [{"text": f"row {number}"} for number in range(2000)]


def kept(results):
    return [result for result in results if not isinstance(result, Drop)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"minimum": 4}, None),
        ({"minimum": 5}, Drop("shorter than 5 words", size=4)),
        ({"maximum": 4}, None),
        ({"maximum": 3}, Drop("longer than 3 words", size=4)),
        ({"maximum": 1}, Drop("longer than 1 word", size=4)),
        ({"minimum": 16, "maximum": 20, "unit": "characters"}, Drop("shorter than 16 characters", size=15)),
        ({"maximum": 1, "unit": "characters"}, Drop("longer than 1 character", size=15)),
        ({"maximum": 3, "unit": "tokens"}, Drop("longer than 3 tokens", size=7)),
        ({"minimum": 7, "maximum": 7, "unit": "tokens"}, None),
    ],
)
def test_a_length_is_within_its_bounds(apply, options, expected):
    row = {"text": "the film\nwas at"}
    assert apply("filter-length", row, **options) == [expected or row]


def test_a_sample_has_about_the_fraction(apply):
    assert len(kept(apply("sample", *ROWS, fraction=0.3))) == pytest.approx(600, abs=60)


def test_a_row_shares_its_fate_with_its_equals_whatever_is_around_it(apply):
    chosen = kept(apply("sample", *ROWS, fraction=0.3))
    assert kept(apply("sample", *reversed(ROWS[::2]), fraction=0.3)) == [row for row in reversed(ROWS[::2]) if row in chosen]


def test_a_larger_sample_holds_the_smaller_one(apply):
    smaller, larger = (kept(apply("sample", *ROWS[:300], fraction=fraction)) for fraction in (0.2, 0.4))
    assert all(row in larger for row in smaller)


def test_another_seed_takes_another_sample(apply, context):
    other = Context(context.tokenizer, context.max_seq_length, seed=43)
    assert kept(apply("sample", *ROWS, fraction=0.3)) != kept(apply("sample", *ROWS, fraction=0.3, told=other))


@pytest.mark.parametrize("held_out", [True, False])
def test_a_sample_of_one_side_has_the_fraction_of_it(apply, held_out):
    # Were both drawn by one lot, the sample of the rows that data.eval leaves would be none of them.
    side = [row for row in ROWS if is_held_out(row, 0.5) == held_out]
    assert len(kept(apply("sample", *side, fraction=0.3))) == pytest.approx(0.3 * len(side), abs=60)


def test_a_sample_ends_after_so_many_rows(apply):
    assert apply("sample", *ROWS[:4], rows=2) == [*ROWS[:2], *[Drop("beyond the first 2 rows")] * 2]


def test_a_fraction_is_taken_before_rows_are_counted(apply):
    assert kept(apply("sample", *ROWS, fraction=0.3, rows=50)) == kept(apply("sample", *ROWS, fraction=0.3))[:50]


def test_a_row_outside_the_sample_says_so(apply):
    dropped = {result for result in apply("sample", *ROWS, fraction=0.3) if isinstance(result, Drop)}
    assert dropped == {Drop("outside the sample of 0.3")}


@given(row=st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers() | st.none(), max_size=3))
def test_split_agrees_with_the_held_out_rows(apply, row):
    held_out = is_held_out(row, 0.5)
    assert apply("split", row, fraction=0.5) == [Drop("held out") if held_out else row]
    assert apply("split", row, fraction=0.5, keep="held-out") == [row if held_out else Drop("not held out")]
