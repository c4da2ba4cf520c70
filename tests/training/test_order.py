"""Which rows a step trains on: a function of seed, epoch and step, dealt out to any number of processes."""

import attrs
import pytest

from smolora_core.training.order import RowOrder

ORDER = RowOrder(count=103, per_step=8, seed=42)


def flat(parts):
    return [each for part in parts for each in part]


@pytest.mark.parametrize("filled", [None, [[2 * unit, 2 * unit + 1] for unit in range(103)]])
def test_an_epoch_has_every_row_once(filled):
    order = attrs.evolve(ORDER, filled=filled)
    rows = flat(map(order.rows, order.steps(3)))
    assert sorted(rows) == list(range(103 if filled is None else 206))


def test_epochs_differ_and_are_drawn_again_alike():
    epochs = [flat(ORDER.steps(epoch)) for epoch in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[2] == flat(ORDER.steps(2))
    assert epochs[2] != flat(attrs.evolve(ORDER, seed=43).steps(2))


def test_steps_after_a_resume_are_those_that_were_left():
    whole = list(ORDER.steps(1))
    for taken in range(len(whole)):
        assert list(ORDER.steps(1, 8 * taken)) == whole[taken:]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_step_is_the_same_rows_for_any_ranks_and_micro_batches(ranks, size):
    for units in ORDER.steps(0):
        shares = [ORDER.deal(units, rank, ranks, size) for rank in range(ranks)]
        assert sorted(flat(map(flat, shares))) == sorted(units)
        assert max(map(len, flat(shares))) <= size
        counts = [len(flat(share)) for share in shares]
        assert max(counts) - min(counts) <= 1


def test_filled_micro_batches_are_dealt_whole():
    order = attrs.evolve(ORDER, filled=[[unit] * (1 + unit % 3) for unit in range(103)])
    assert [order.deal([5, 1, 7], rank, 2, 4) for rank in (0, 1)] == [[[5] * 3, [7] * 2], [[1] * 2]]


def test_an_epoch_ends_with_a_smaller_step_unless_it_is_dropped():
    assert (ORDER.steps_per_epoch, len(list(ORDER.steps(0))), len(list(ORDER.steps(0))[-1])) == (13, 13, 7)
    assert [ORDER.ends_at(done) for done in (0, 95, 96, 103)] == [False, False, False, True]
    dropping = attrs.evolve(ORDER, drops_last=True)
    assert (dropping.steps_per_epoch, len(list(dropping.steps(0)))) == (12, 12)
    assert [dropping.ends_at(done) for done in (0, 88, 96)] == [False, False, True]


def test_in_sequence_every_epoch_has_the_order_of_the_data():
    order = attrs.evolve(ORDER, shuffled=False)
    assert flat(order.steps(0)) == flat(order.steps(1)) == list(range(103))


def test_steps_of_similar_length_are_shuffled_and_complete():
    lengths = [1 + number * 37 % 101 for number in range(1203)]
    order = RowOrder(count=1203, per_step=8, seed=42, lengths=lengths)
    steps = list(order.steps(0))
    assert sorted(flat(steps)) == list(range(1203))
    assert [len(step) for step in steps] == [8] * 150 + [3]
    spread = [max(each) - min(each) for each in ([lengths[row] for row in step] for step in steps)]
    assert sum(spread) / len(spread) < 5
    longest = [max(lengths[row] for row in step) for step in steps[:50]]
    assert longest != sorted(longest, reverse=True)
    assert steps != list(order.steps(1))
