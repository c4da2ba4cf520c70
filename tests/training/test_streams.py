"""A stream is resumed at the row where it was left, in whichever pass and block; rows that are skipped draw nothing."""

import pytest
import torch
import transformers

from smolora_core.data import stream as module
from smolora_core.training.loaders import StepLoader, make_order
from smolora_core.training.ranks import Ranks
from tests.support.resumed import LENGTHS, SPLIT, disturb, dropping_out, end_of, make
from tests.support.scripted import values_of
from tests.support.small_run import batch, rows, trainer
from tests.support.streamed import streamed

COUNT, PER_STEP = 25, 6
PER_PASS = 5
"""Steps of a pass: four of six rows and one of the last row."""


@pytest.fixture(scope="module")
def tokenizer(llama):
    return transformers.AutoTokenizer.from_pretrained(llama)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Shuffle within blocks of 10 rows; they are read in tables of at most 4."""
    monkeypatch.setattr(module, "_BLOCK", 10)


def trained(llama, tokenizer, folder, resume=None):
    """Train two passes and a half on a stream; return the loop, the texts of each step, and where epochs began."""
    stream = streamed(tokenizer, [f"cat {number}" for number in range(COUNT)]).dataset
    made, seen, by_step, begun = make(llama, folder, train=stream, max_steps=13, held_out=(), **SPLIT), [], {}, []

    def collate(of):
        seen.extend(tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in of)
        return batch(of)

    class Steps(transformers.TrainerCallback):
        def on_epoch_begin(self, args, state, control, **more):
            begun.append(state.global_step)

        def on_step_end(self, args, state, control, **more):
            by_step[state.global_step] = seen.copy()
            seen.clear()

    made.data_collator = collate
    made.add_callback(Steps())
    disturb()
    made.train(resume_from=resume)
    return made, by_step, begun


@pytest.fixture(scope="module")
def whole(llama, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", 10)
        return folder, *trained(llama, tokenizer, folder)


def test_a_pass_has_every_row_once_in_an_order_of_its_own(whole):
    _, made, steps, begun = whole
    texts = [f"cat {number}" for number in range(COUNT)]
    first, second = ([text for step in range(start, start + PER_PASS) for text in steps[step]] for start in (1, 1 + PER_PASS))
    assert sorted(first) == sorted(second) == sorted(texts)
    assert first != second != texts
    assert [len(steps[step]) for step in range(1, 6)] == [6, 6, 6, 6, 1]
    assert values_of(made, "epoch") == {2: 0, 4: 0, 6: 1, 8: 1, 10: 1, 12: 2, 13: 2}
    assert begun == [0, PER_PASS, 2 * PER_PASS]


@pytest.mark.parametrize("step", [1, 2, 4, 5, 7, 10])
def test_a_resume_trains_every_row_that_was_left_once_and_no_other(llama, tokenizer, tmp_path, whole, step):
    """Within a block and between two, at the end of a pass, and in later passes."""
    folder, _, steps, _ = whole
    _, found, _ = trained(llama, tokenizer, tmp_path, folder / f"checkpoint-{step}")
    assert found == {later: steps[later] for later in range(step + 1, 14)}


class Drawing(torch.utils.data.IterableDataset):
    """Rows whose reading draws random numbers, as augmentation does."""

    def __iter__(self):
        for row in rows(LENGTHS):
            torch.rand(1)
            yield row


def test_what_reading_draws_does_not_reach_training(llama, tmp_path):
    """Nor when rows are skipped: the base model drops out as it did."""

    def drawing(folder):
        model = dropping_out(llama)
        for each in model.modules():
            if hasattr(each, "attention_dropout"):
                each.attention_dropout = 0.2
        return make(llama, folder, train=Drawing(), model=model, max_steps=4)

    made = drawing(tmp_path)
    expected = end_of(made, made.train())
    again = drawing(tmp_path / "again")
    disturb()
    assert end_of(again, again.train(resume_from=tmp_path / "checkpoint-2")).parameters == expected.parameters


class Million(torch.utils.data.Dataset):
    """Many rows, and which of them were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 1_000_008

    def __getitem__(self, row):
        self.read.append(row)
        return {"input_ids": [5, 6, 7], "labels": [5, 6, 7]}


def test_a_million_rows_are_skipped_without_reading_one_or_drawing_a_number(llama, tmp_path):
    dataset, arguments = Million(), trainer(dropping_out(llama), None, tmp_path).args
    loader = StepLoader(dataset, batch, make_order(dataset, arguments, 4), arguments, Ranks())
    before = torch.get_rng_state()
    units = []
    for step in loader.steps(1, 1_000_000):
        assert [list(each["input_ids"].shape) for each in step.micro_batches] == [[4, 3]]
        units += step.units
    assert len(set(units)) == 8
    assert units == dataset.read
    assert torch.equal(torch.get_rng_state(), before)
