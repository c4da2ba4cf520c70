"""The size of micro-batches is found by trying, and kept when a run is resumed."""

import re
from functools import partial

import pytest
import torch
from datasets import Dataset

from smolora_core import ConfigError, SmoLoRA, TrainingConfig
from smolora_core.training.auto_batch_size import Tried, choose_rows, longest_rows, sizes_of, try_micro_steps
from tests.support.small_memory import Small
from tests.support.small_run import batch, cross_entropy, gradients, load, objective, rows

GB = 10**9


@pytest.mark.parametrize(
    ("needs", "rates", "free", "expected"),
    [
        ([1, 2, 4, 8], [100, 200, 400, 800], 100, (8, "the largest size that the effective batch and the dataset allow")),
        ([1, 2, 4, 8], [100, 200, 400, 800], 5, (4, "8 rows would need 8.0 GB, more than 80% of 5.0 GB free")),
        # Beside what every size needs, so much for each row.
        ([11, 12, 14, 18], [100, 200, 400, 800], 30, (8, "the largest size that the effective batch and the dataset allow")),
        ([1, 2, None], [100, 200, 400], 100, (2, "4 rows ran out of memory")),
        ([None], [100], 100, (0, "one row ran out of memory")),
        ([1, 2, 4], [1000, 1100, 1110], 100, (2, "4 rows are no faster: 1,110 tokens/s against 1,100 with 2")),
    ],
)
def test_more_rows_are_tried_while_they_fit_and_are_faster(needs, rates, free, expected):
    sizes = [1, 2, 4, 8][: len(needs)]
    found = {
        size: None if need is None else Tried(size, need * GB, rate)
        for size, need, rate in zip(sizes, needs, rates, strict=True)
    }
    assert choose_rows(sizes, found.__getitem__, free * GB) == expected


def test_sizes_divide_what_a_process_has_of_the_effective_batch():
    assert sizes_of(16, 1, rows=100) == [1, 2, 4, 8, 16]
    assert sizes_of(24, 2, rows=100) == [1, 2, 3, 4, 6, 12]
    assert sizes_of(16, 1, rows=5) == [1, 2, 4]
    # Of three processes, two have five rows and one has six.
    assert sizes_of(16, 3, rows=100) == [1, 2, 3, 6]


def test_the_longest_rows_are_tried():
    made = Dataset.from_list([{**row, "weight": 1.0} for row in rows([(1, 2), (3, 9), (0, 5), (2, 2)])])
    assert [len(row["input_ids"]) for row in longest_rows(made.select([3, 2, 1, 0]), 2)] == [12, 5]


def test_trying_leaves_no_trace_and_outlives_what_does_not_fit(llama):
    model = load(llama)
    Small(model, room=2)
    before = torch.get_rng_state()
    measure = partial(objective(cross_entropy, model), model)
    try_out = try_micro_steps(model, measure, batch, rows(), torch.device("cpu"))
    fitting = try_out(2)
    assert (fitting.rows, fitting.rate > 0) == (2, True)
    assert try_out(4) is None
    assert (gradients(model), model.training) == ({}, False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_is_that_of_the_size_it_finds_and_keeps_it(llama, tmp_path):
    told, texts = [], [{"text": f"the film was good, said {number} of us"} for number in range(8)]

    def run(folder, steps, resume="never", **sizes):
        training = TrainingConfig(max_steps=steps, max_seq_length=64, learning_rate=1e-2, **sizes)
        options = {"output_dir": str(tmp_path / folder), "model": {"dtype": "float32", "device": "cpu"}}
        run = SmoLoRA(str(llama), texts, training=training, listener=told.append, **options)
        run.train(save_steps=1, resume=resume)
        return (tmp_path / folder / "adapter" / "adapter_model.safetensors").read_bytes()

    auto = {"per_device_train_batch_size": "auto", "effective_batch_size": 4}
    run("found", 1, **auto)
    found = run("found", 2, resume="auto", **auto)
    notes = [each.values["text"] for each in told if each.kind == "note" and "accumulated" in each.values["text"]]
    said = [
        re.fullmatch(r"micro-batches of (\d) rows on cpu, accumulated (\d) times \((.*)\)", note).groups() for note in notes
    ]
    (micro_batch, times, _), again = said
    assert int(micro_batch) * int(times) == 4
    assert again == (micro_batch, times, "from the checkpoint")
    split = {"per_device_train_batch_size": int(micro_batch), "gradient_accumulation_steps": int(times)}
    run("given", 1, **split)
    assert run("given", 2, resume="auto", **split) == found


@pytest.mark.parametrize(
    ("training", "data", "problem"),
    [
        (
            {"max_tokens_per_batch": 512},
            {},
            "but training.max_tokens_per_batch also sizes micro-batches; remove one of them",
        ),
        (
            {"max_steps": 1},
            {"streaming": True},
            "which needs the longest rows, but streamed rows are not known in advance; set a number",
        ),
    ],
)
def test_what_leaves_nothing_to_try_is_refused(llama, tmp_path, training, data, problem):
    section = {"per_device_train_batch_size": "auto", **training}
    run = SmoLoRA(str(llama), [{"text": "a cat sat"}], output_dir=str(tmp_path / "run"), training=section, data=data)
    with pytest.raises(ConfigError) as error:
        run.train()
    assert str(error.value) == f"given from Python training.per_device_train_batch_size is auto, {problem}"
