"""The same rows give the same optimizer step, however they are split into micro-batches and over ranks."""

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from tests.support.small_run import (
    LOSSES,
    Watch,
    batch,
    cross_entropy,
    difference,
    gradients,
    load,
    objective,
    one_step,
    rows,
    trainer,
)
from tests.support.two_ranks import one_row, rates

# Float32 has 24 bits: a sum in another order is another by 6e-8 of its largest part, and there are a few of them in a row.
EQUAL = 1e-6


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_micro_batches_do_not_change_the_step(request, tmp_path, base, loss):
    folder = request.getfixturevalue(base)
    gradient, logged = one_step(tmp_path, folder, loss, micro_batch=8, accumulation=1)
    for micro_batch, accumulation in [(4, 2), (1, 8), (3, 3)]:
        other_gradient, other_logged = one_step(tmp_path, folder, loss, micro_batch, accumulation)
        assert difference(other_gradient, gradient) < EQUAL
        assert other_logged == pytest.approx(logged, rel=EQUAL)


def test_the_last_step_of_an_epoch_may_have_fewer_rows(tmp_path, llama):
    model, watch = load(llama), Watch()
    in_order = {"extra": {"train_sampling_strategy": "sequential"}, "learning_rate": 1e-30, "num_train_epochs": 1}
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3}
    trainer(model, objective(cross_entropy, model), tmp_path, rows()[:4], watch=watch, **split, **in_order).train()
    alone = load(llama)
    found = objective(cross_entropy, alone)(alone, batch(rows()[3:4]))
    (found.sum / found.weight).backward()
    assert len(watch.gradients) == 2
    assert difference(watch.gradients[1], gradients(alone)) < EQUAL


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, llama):
    """The results of two ranks, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.support.two_ranks", llama, folder]
    ended = subprocess.run(command, timeout=240, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return folder, [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_ranks_do_not_change_the_step(tmp_path, ranks, llama, loss, accumulation):
    folder, results = ranks
    gradient, logged = one_step(tmp_path, llama, loss, micro_batch=8, accumulation=1)
    for rank, result in enumerate(results):
        assert difference(load_file(folder / f"{loss}-{accumulation}-{rank}.safetensors"), gradient) < EQUAL
        assert result["steps"][f"{loss}-{accumulation}"] == pytest.approx(logged, rel=EQUAL)


@pytest.mark.slow
def test_ranks_do_not_change_the_evaluation(tmp_path, ranks, llama):
    """Seven rows do not divide by two, and none may count twice."""
    model = load(llama)
    alone = trainer(model, objective(cross_entropy, model), tmp_path, held_out=rows()[:7]).evaluate_now()["eval_loss"]
    assert [result["evaluated"] for result in ranks[1]] == pytest.approx([alone, alone], rel=EQUAL)


@pytest.mark.slow
def test_one_rank_saves(ranks):
    assert [result["saved"] for result in ranks[1]] == [[1], []]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_size_of_a_batch_does_not_change_the_evaluation(tmp_path, llama, loss):
    function, record = LOSSES[loss]
    model = load(llama)
    measure = objective(function, model, **record)
    losses = [
        trainer(model, measure, tmp_path, held_out=rows(), per_device_eval_batch_size=size).evaluate()["eval_loss"]
        for size in (1, 3, 8)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=EQUAL)


@pytest.mark.slow
def test_the_schedule_moves_once_a_step_on_any_number_of_ranks(tmp_path, ranks, llama):
    alone = rates(str(llama), tmp_path, 8)
    assert alone == pytest.approx([0, 5e-3, 1e-2, 5e-3])
    assert [result["rates"] for result in ranks[1]] == [alone, alone]


@pytest.mark.slow
def test_a_rank_without_a_row_takes_part(tmp_path, ranks, llama):
    alone = one_row(str(llama), tmp_path)
    assert len(alone) == 3
    assert [result["fewer"] for result in ranks[1]] == [pytest.approx(alone, rel=EQUAL)] * 2
