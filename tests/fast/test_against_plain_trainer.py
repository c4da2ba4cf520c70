"""Thirty steps of ours, without padding and with fast layers, lose what thirty steps of a plain Trainer lose."""

import copy

import pytest
import torch
import transformers

from smolora_core.fast.apply import make_fast
from smolora_plugins.tasks.causal_lm import CausalLM
from tests.support.families import make
from tests.support.small_run import Watch, batch, cross_entropy, objective, rows, trainer

SETTINGS = {"per_device_train_batch_size": 4, "max_steps": 30}


def some_rows():
    """Rows of few different tokens, which is soon learned."""
    made = rows([(3 * n % 11, 4 + 7 * n % 23) for n in range(32)])
    few = lambda ids: [each % 6 + 3 if each >= 0 else each for each in ids]  # noqa: E731
    return [{"input_ids": few(row["input_ids"]), "labels": few(row["labels"])} for row in made]


def plain(model, folder):
    watch = Watch()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, logging_steps=1, learning_rate=1e-2, max_grad_norm=0.0, save_strategy="no",
        report_to="none",
        remove_unused_columns=False, disable_tqdm=True, train_sampling_strategy="sequential", **SETTINGS,
    )  # fmt: skip
    made = transformers.Trainer(model=model, args=arguments, train_dataset=some_rows(), data_collator=batch, callbacks=[watch])
    made.train()
    return watch.losses


def fast(model, folder):
    watch = Watch()
    speed = make_fast(model, CausalLM(), "token")
    settings = {**SETTINGS, "gradient_accumulation_steps": 1, "extra": {"train_sampling_strategy": "sequential"}}
    made = trainer(model, objective(cross_entropy, model), folder, some_rows(), watch=watch, **settings)
    made.data_collator = speed.batching.collate
    made.train()
    return watch.losses


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_losses_step_by_step(tmp_path, dtype, within):
    model = make("llama", dtype)
    expected = plain(copy.deepcopy(model), tmp_path / "plain")
    found = fast(model, tmp_path / "fast")
    assert len(found) == 30
    assert expected[-1] < expected[0] - 0.2
    assert found == pytest.approx(expected, rel=within)
