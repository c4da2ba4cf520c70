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
    train, held_out = ([located.row["text"] for located in read(None)] for read in (splits.train, splits.held_out["data.eval"]))
    assert sorted([*train, *held_out]) == sorted(row["text"] for row in rows)


def test_a_fraction_that_leaves_nothing_to_train_on_is_to_be_lowered() -> None:
    splits = open_splits(DataConfig(train="-", eval=0.99), rows=ROWS)
    with pytest.raises(DatasetError) as caught:
        list(splits.train(None))
    assert str(caught.value) == "data.eval 0.99 leaves none of 3 rows to train on; decrease it"


def test_a_fraction_that_holds_out_nothing_is_to_be_raised() -> None:
    splits = open_splits(DataConfig(train="-", eval=0.01), {"data.train": "", "data.eval": "run.yaml:4"}.__getitem__, ROWS)
    with pytest.raises(DatasetError) as caught:
        list(splits.held_out["data.eval"](None))
    assert str(caught.value) == "run.yaml:4 data.eval 0.01 holds out none of 3 rows; increase it, or add data"


def test_documents_are_counted_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("y")
    splits = open_splits(DataConfig(train=str(tmp_path), eval=0.1))
    with pytest.raises(DatasetError) as caught:
        list(splits.held_out["data.eval"](None))
    assert str(caught.value) == "data.eval 0.1 holds out none of 2 documents; increase it, or add data"


def test_both_sources_are_read_as_the_config_says_and_what_was_guessed_is_said_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_bytes("good|día\nbad|ño\n".encode("cp850"))
    Path("eval.csv").write_bytes(b"good|d\xa1a")
    config = DataConfig(train="train.csv", eval="eval.csv", encoding="cp850", delimiter="|", header=False)
    splits = open_splits(config)
    assert [located.row["column_2"] for located in splits.train(None)] == ["día", "ño"]
    assert [located.row["column_2"] for located in splits.held_out["data.eval"](None)] == ["día"]
    assert splits.notes() == ()
    guessed = open_splits(DataConfig(train="train.csv", eval="eval.csv", encoding="cp850", header=False))
    assert guessed.notes() == (
        "train.csv is delimited by '|'; set data.delimiter if that is wrong",
        "eval.csv is delimited by '|'; set data.delimiter if that is wrong",
    )


def test_one_folder_may_hold_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/train.jsonl").write_text('{"text": "a"}')
    Path("data/test.jsonl").write_text('{"text": "b"}')
    splits = open_splits(DataConfig(train="data", eval="data"))
    assert [located.where for located in splits.train(None)] == ["data/train.jsonl:1"]
    assert [located.where for located in splits.held_out["data.eval"](None)] == ["data/test.jsonl:1"]
    assert splits.notes() == (
        "folder 'data': reading train.jsonl, skipping test.jsonl; set data.eval to 'data' to evaluate on the rest",
        "folder 'data': reading test.jsonl, skipping train.jsonl",
    )


def test_a_guess_about_a_source_of_both_sides_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("text;label\nx;y\n")
    splits = open_splits(DataConfig(train="a.csv", eval=0.5))
    assert splits.notes() == ("a.csv is delimited by ';'; set data.delimiter if that is wrong",)


def test_named_sets_are_read_apart_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "a", "b"):
        Path(f"{name}.jsonl").write_text(f'{{"text": "{name}"}}')
    splits = open_splits(DataConfig(train="train.jsonl", eval={"hard": "b.jsonl", "easy": "a.jsonl"}))
    read = {key: [located.row["text"] for located in rows(None)] for key, rows in splits.held_out.items()}
    assert list(read.items()) == [("data.eval.hard", ["b"]), ("data.eval.easy", ["a"])]
    assert [located.row["text"] for located in splits.train(None)] == ["train"]


def test_a_named_set_that_is_missing_is_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text('{"text": "a"}')
    with pytest.raises(DatasetError) as caught:
        open_splits(DataConfig(train="train.jsonl", eval={"easy": "esay.jsonl"}), where=lambda key: f"run.yaml:{key}")
    assert str(caught.value) == "run.yaml:data.eval.easy no file 'esay.jsonl'; did you mean 'train.jsonl'?"


def test_many_guesses_are_not_all_listed(tmp_path: Path) -> None:
    for number in range(15):
        (tmp_path / f"{number:02}.txt").write_bytes("the café in town".encode("latin-1"))
    notes = open_splits(DataConfig(train=str(tmp_path))).notes()
    assert len(notes) == 11
    assert notes[-1] == "and 5 more notes like these"
