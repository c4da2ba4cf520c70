"""Optimizers that need less memory: chosen by name, refused before any row is read, and continued to the last bit."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smolora_core import ConfigError, train
from tests.support.models import save_llama

ROWS = "\n".join(json.dumps({"text": f"the film was good, said {number} of us"}) for number in range(8))


def run(base: Path, folder: Path, steps: int = 4, resume: str = "never", rank: int = 4, **extra: object) -> dict:
    rows = folder.with_name("rows.jsonl")
    rows.write_text(ROWS)
    config = {
        "model": {"path": str(base), "device": "cpu", "dtype": "float32"},
        "data": {"train": str(rows)},
        "output_dir": str(folder),
        "lora": {"r": rank},
        "training": {"max_steps": steps, "gradient_accumulation_steps": 1, "learning_rate": 1e-2, "extra": extra},
        "checkpoints": {"save_steps": 2, "keep": 5},
    }
    train(config, resume=resume)
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def assert_it_goes_on(base: Path, folder: Path, **options: object) -> None:
    options |= {"lr_scheduler_type": "constant"}
    whole = run(base, folder / "whole", **options)
    run(base, folder / "parts", steps=2, **options)
    parts = run(base, folder / "parts", resume="auto", **options)
    assert all(torch.equal(parts[name], each) for name, each in whole.items())


def test_a_run_goes_on_with_adafactor_as_if_it_had_not_stopped(llama, tmp_path):
    assert_it_goes_on(llama, tmp_path, optim="adafactor")


@pytest.mark.slow
@pytest.mark.parametrize("optim", ["adamw_8bit", "paged_adamw_8bit", "lion_8bit"])
def test_a_run_goes_on_with_moments_of_8_bits(tmp_path, optim):
    if "SMOLORA_TEST_QUANT" not in os.environ:
        pytest.importorskip("bitsandbytes")
    # Of fewer than 4096 numbers they stay float32.
    base = save_llama(tmp_path / "base", hidden_size=128)
    assert_it_goes_on(base, tmp_path, optim=optim, rank=32)
    moments = load_file(tmp_path / "whole" / "checkpoint-4" / "optimizer.safetensors")
    assert {each.dtype for name, each in moments.items() if name.endswith(".state1")} >= {torch.uint8}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            {"optim": "adamw_8bit"},
            "cannot create the optimizer adamw_8bit (You need to install `bitsandbytes` in order to use bitsandbytes "
            "optimizers: `pip install -U bitsandbytes`); pip install 'smolora[quant]'",
        ),
        (
            {"adam_beta1": 3.0},
            "cannot create the optimizer adamw_torch_fused (Invalid beta parameter at index 0: 3.0)",
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"nope": 1}},
            "cannot create the schedule cosine (get_cosine_schedule_with_warmup() got an unexpected keyword argument 'nope')",
        ),
    ],
    ids=["not installed", "an option", "a schedule's option"],
)
def test_what_cannot_be_made_is_refused_before_rows_are_read(llama, tmp_path, monkeypatch, extra, message):
    monkeypatch.setattr("transformers.trainer_optimizer.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ConfigError) as error:
        run(llama, tmp_path / "run", **extra)
    assert str(error.value) == f"training.extra: {message}"
    assert error.value.__cause__ is not None
    assert not (tmp_path / "run" / "ledger.json").exists()
