"""Memory runs out, and the step is the same: at any micro-step, in whatever words, for every loss and task."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from smolora_core import TrainingError
from smolora_core.batches.padding import concatenate, pad, split
from smolora_core.training.oom import is_out_of_memory
from tests.support.limited import run as run_of_long_rows
from tests.support.models import save_llama
from tests.support.resumed import disturb, dropping_out, end_of, make
from tests.support.small_memory import ERRORS, Small
from tests.support.small_run import difference, load, rows


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:20])
def test_it_is_told_apart_by_its_words_and_type(error):
    assert is_out_of_memory(error)
    wrapped = ValueError("raised by a plugin")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("collate", [lambda of: pad(of, 1), concatenate], ids=["padded", "end to end"])
def test_a_batch_is_the_same_in_parts_and_whole(collate):
    made = rows([(2, 5), (1, 3), (0, 4)])
    for part, expected in zip(split(collate(made)), (made[:1], made[1:]), strict=True):
        again = collate(expected)
        assert part.keys() == again.keys()
        for name, each in again.items():
            # A part stays as wide as the whole was.
            found = part[name][:, : each.shape[1]] if isinstance(each, torch.Tensor) and each.dim() > 1 else part[name]
            torch.testing.assert_close(found, each)


def end(llama, folder, **small):
    """Train three steps of three micro-batches of two rows; give the adapter back."""
    model = load(llama)
    memory = Small(model, **small)
    made = make(llama, folder, model=model, num_train_epochs=1, eval_steps=500, save_steps=500)
    made.train()
    assert made.state.global_step == 3
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}, memory.passes


def test_it_runs_out_at_any_micro_step(llama, tmp_path):
    expected, passes = end(llama, tmp_path, when=lambda number: False)
    assert passes == 7
    # The last micro-batch is a single row.
    for at in range(passes - 1):
        options = {"when": at.__eq__, "error": ERRORS[at % len(ERRORS)], "backward": at % 2 == 1}
        found, its_passes = end(llama, tmp_path, **options)
        assert its_passes > passes
        assert difference(found, expected) < 1e-5
    found, _ = end(llama, tmp_path, backward=True)
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("training", "at", "saved"), [(True, 5, 1), (True, 7, 3), (False, 1, 3)], ids=["step", "epoch", "evaluation"]
)
def test_the_last_step_is_saved_to_go_on_from(llama, tmp_path, training, at, saved):
    whole = make(llama, tmp_path / "whole", save_steps=500)
    expected = end_of(whole, whole.train())
    model = dropping_out(llama)
    Small(model, 0, when=at.__le__, training=training)
    with pytest.raises(TrainingError, match=r"out of memory .* with a micro-batch of one row; lower data.max_seq_length"):
        make(llama, tmp_path / "full", save_steps=500, model=model).train()
    again = make(llama, tmp_path / "again", save_steps=500)
    disturb()
    assert end_of(again, again.train(resume_from=tmp_path / "full" / f"checkpoint-{saved}")) == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process may take")
def test_a_process_with_little_memory_learns_the_same(tmp_path):
    save_llama(tmp_path / "base", hidden_size=128, intermediate_size=1024, num_hidden_layers=12)
    assert run_of_long_rows(tmp_path) == []
    command = [sys.executable, "-m", "tests.support.limited", str(tmp_path), "40"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(ended.stdout.splitlines()[-1])
    assert [(each["rows"], each["rows_after"]) for each in told] == [(8, 4)]
    whole, parts = (load_file(tmp_path / f"run-{number}" / "adapter" / "adapter_model.safetensors") for number in (0, 1))
    assert difference(parts, whole) < 1e-5
