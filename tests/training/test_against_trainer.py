"""Fifty steps of ours, accumulated from micro-batches, lose what fifty steps of transformers' own Trainer lose."""

import copy

import attrs
import pytest
import torch
import transformers

from smolora_core import hookimpl, train
from tests.support.small_tasks import CASES, FILMS, write

LABELS = ("ham", "spam", "eggs")
KINDS = {
    "causal-lm": CASES["causal-lm"],
    "three classes": attrs.evolve(
        CASES["sequence-classification"],
        rows=lambda number: {"text": f"{FILMS[number % 3]} {' the' * (number % 7)}", "label": LABELS[number % 3]},
    ),
    "seq2seq-lm": CASES["seq2seq-lm"],
}
STEPS, ROWS = 50, 40
OPTIMIZER = {
    "weight_decay": 0.1,
    "adam_beta2": 0.99,
    "max_grad_norm": 0.2,
    "warmup_steps": 5,
    "lr_scheduler_type": "cosine",
    "train_sampling_strategy": "sequential",
}


class Beginning(transformers.TrainerCallback):
    """A plugin that keeps what training begins with, and the losses that follow."""

    def __init__(self):
        self.losses, self.norms = [], []

    @hookimpl
    def smolora_adapter_attached(self, model):
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)

    @hookimpl
    def smolora_callbacks(self):
        return [self]

    def on_train_begin(self, args, state, control, model=None, train_dataloader=None, **more):
        self.model, self.rows, self.collate = copy.deepcopy(model), train_dataloader.dataset, train_dataloader.collate_fn

    def on_log(self, args, state, control, logs=None, **more):
        if "loss" in logs:
            self.losses.append(logs["loss"])
            self.norms.append(logs["grad_norm"])


def ours(case, folder):
    """Train on micro-batches of 2 rows, four in a step."""
    beginning = Beginning()
    config = {
        "model": {"path": str(case.save(folder / "model")), "dtype": "float32", "device": "cpu"},
        "task": case.task,
        "output_dir": str(folder / "run"),
        "data": {"train": str(write(folder / "train.jsonl", case.some(0, ROWS))), "max_seq_length": 64, **case.data},
        "lora": {"r": 4, "dropout": 0.0},
        "training": {
            "max_steps": STEPS,
            "learning_rate": 3e-3,
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 4,
            "batching": "padded",
            "fast_kernels": False,
            "extra": OPTIMIZER,
        },
    }
    train(config, plugins=[beginning])
    return beginning


def theirs(beginning, folder):
    """Train on all rows of a step at once, because Trainer does not weigh the micro-batches of every model by their targets."""
    watch = Beginning()
    names = {"input_ids", "attention_mask", "labels", "token_type_ids"}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        learning_rate=3e-3,
        logging_steps=1,
        per_device_train_batch_size=8,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        **OPTIMIZER,
    )
    transformers.Trainer(
        model=beginning.model,
        args=arguments,
        train_dataset=beginning.rows,
        data_collator=lambda rows: {name: each for name, each in beginning.collate(rows).items() if name in names},
        callbacks=[watch],
    ).train()
    return watch


@pytest.mark.parametrize("kind", KINDS)
def test_losses_step_by_step(tmp_path, kind):
    found = ours(KINDS[kind], tmp_path)
    expected = theirs(found, tmp_path / "theirs")
    assert len(found.losses) == STEPS
    assert expected.losses[-1] < expected.losses[0] - 0.1
    assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    assert found.norms == pytest.approx(expected.norms, rel=1e-5)
