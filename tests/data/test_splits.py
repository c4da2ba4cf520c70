"""The two sides of the data, and what is said where a fraction leaves one of them empty."""

from pathlib import Path

import pytest

from smolora_core.config import DataConfig
from smolora_core.data.splits import open_splits
from smolora_core.errors import DatasetError

ROWS = [{"text": f"row {number}"} for number in range(3)]


def test_both_sides_together_are_the_source() -> None:
    rows = [{"text": f"row {number}"} for number in range(100)]
    splits = open_splits(DataConfig(train="-", eval=0.3), rows=rows)
    assert splits.held_out is not None
    train, held_out = ([located.row["text"] for located in read(None)] for read in (splits.train, splits.held_out))
    assert sorted([*train, *held_out]) == sorted(row["text"] for row in rows)


def test_a_fraction_that_leaves_nothing_to_train_on_is_to_be_lowered() -> None:
    splits = open_splits(DataConfig(train="-", eval=0.99), rows=ROWS)
    with pytest.raises(DatasetError) as caught:
        list(splits.train(None))
    assert str(caught.value) == "data.eval 0.99 leaves no row of 3 to train on; lower it"


def test_a_fraction_that_holds_out_nothing_is_to_be_raised() -> None:
    splits = open_splits(DataConfig(train="-", eval=0.01), where_eval="run.yaml:4", rows=ROWS)
    assert splits.held_out is not None
    with pytest.raises(DatasetError) as caught:
        list(splits.held_out(None))
    assert str(caught.value) == "run.yaml:4 data.eval 0.01 holds out none of 3 rows; raise it, or give more rows"


def test_documents_are_counted_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("y")
    splits = open_splits(DataConfig(train=str(tmp_path), eval=0.1))
    assert splits.held_out is not None
    with pytest.raises(DatasetError) as caught:
        list(splits.held_out(None))
    assert str(caught.value) == "data.eval 0.1 holds out none of 2 documents; raise it, or give more documents"
