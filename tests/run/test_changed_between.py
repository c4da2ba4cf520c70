"""What changed between two parts of a run: what is noticed, and what goes on all the same."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import smolora_core
from smolora_core import CheckpointWriter, ConfigError, hookimpl
from smolora_core.checkpoints.manifest import read
from tests.support.injector import Injected, fail_at
from tests.support.runs import config_of, digests, events, rows_in
from tests.support.small_run import difference

WEIGHTS = "adapter_model.safetensors"


def stopped(train, **changes):
    """Let a run fail at step 5, with checkpoints of steps 2 and 4."""
    plugins = (*changes.pop("plugins", ()), fail_at(5, "on_step_begin", "raise"))
    with pytest.raises(Injected):
        train(plugins=plugins, **changes)


@pytest.mark.parametrize(("size", "accumulation"), [(4, 2), (1, 2), (4, 1), (2, 3)])
def test_with_other_batches_it_trains_as_many_steps_as_it_should(train, tmp_path, size, accumulation):
    stopped(train, training={"max_steps": 12})
    changed = {"max_steps": 12, "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
    overrides = ("training.per_device_train_batch_size", "training.gradient_accumulation_steps")
    assert train(resume="auto", overrides=overrides, training=changed).steps == 12
    assert [each["step"] for each in events(tmp_path / "run", "log")][-8:] == [5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    "changed",
    [
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": None, "effective_batch_size": 4},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    ],
    ids=["the same rows", "given as rows", "more rows"],
)
def test_a_step_keeps_its_rows_when_it_is_split_otherwise(train, tmp_path, changed):
    train(output_dir=str(tmp_path / "whole"))
    stopped(train)
    train(resume="auto", training=changed)
    whole, parts = (load_file(tmp_path / name / "adapter" / WEIGHTS) for name in ("whole", "run"))
    # Also the adapter's dropout is drawn by row.
    assert difference(parts, whole) < 1e-5
    said = [each["text"] for each in events(tmp_path / "run", "note")]
    keeps = "an optimizer step keeps its 4 rows; the config would have made it 8"
    assert (keeps in said) is (changed["gradient_accumulation_steps"] == 2)


def test_a_checkpoint_says_what_was_measured_at_its_own_step(train, tmp_path):
    train(training={"eval_steps": 3})
    metrics = {step: read(tmp_path / "run" / f"checkpoint-{step}").metrics for step in (4, 6)}
    assert "eval_loss" not in metrics[4]
    assert "eval_loss" in metrics[6]


class Writes:
    """A plugin with a checkpoint writer."""

    def __init__(self, write) -> None:
        self.write = write

    @hookimpl
    def smolora_checkpoint_writers(self) -> list[CheckpointWriter]:
        return [CheckpointWriter(name="card", summary="a card", implementation=self.write)]


def test_a_writer_that_draws_numbers_changes_nothing(train, tmp_path):
    def write(checkpoint: object, directory: Path) -> None:
        (directory / "card.txt").write_text(str(torch.rand(3)))

    saving = {"checkpoints": {"save_steps": 2, "writers": ["adapter", "card"]}}
    stopped(train, plugins=(Writes(write),), **saving)
    train(resume="auto", plugins=(Writes(write),), **saving)
    train(output_dir=str(tmp_path / "whole"))
    assert digests(tmp_path / "run" / "adapter", WEIGHTS) == digests(tmp_path / "whole" / "adapter", WEIGHTS)


def test_a_writer_that_changes_the_model_is_named(train):
    def write(checkpoint: object, directory: Path) -> None:
        (directory / "card.txt").write_text("mine")
        with torch.no_grad():
            next(each for each in checkpoint.model.parameters() if each.requires_grad).add_(1.0)

    saving = {"checkpoints": {"save_steps": 2, "writers": ["adapter", "card"], "save_failure": "stop"}}
    with pytest.raises(smolora_core.CheckpointError) as error:
        train(plugins=(Writes(write),), **saving)
    assert str(error.value).startswith("checkpoint writer 'card' changed the model; it must work on a copy")


def test_other_held_out_rows_are_refused(train, tmp_path):
    held_out = rows_in(tmp_path).rename(tmp_path / "held_out.jsonl")
    stopped(train, data={"train": str(rows_in(tmp_path)), "eval": str(held_out)})
    held_out.write_text(held_out.read_text().replace("bad", "sad"), encoding="utf-8")
    with pytest.raises(ConfigError, match="the held-out data changed since the checkpoint"):
        train(resume="auto", data={"train": str(tmp_path / "reviews.jsonl"), "eval": str(held_out)})


def test_other_streamed_rows_are_refused(train, rows):
    streamed = {"data": {"streaming": True, "eval": None}}
    stopped(train, **streamed)
    rows.write_text(rows.read_text().replace("bad", "sad"), encoding="utf-8")
    with pytest.raises(ConfigError, match="the training data changed since the checkpoint"):
        train(resume="auto", **streamed)


def test_streamed_rows_go_on_where_they_were(train, tmp_path):
    streamed = {"data": {"streaming": True, "eval": None}}
    stopped(train, **streamed)
    train(resume="auto", **streamed)
    train(output_dir=str(tmp_path / "whole"), **streamed)
    assert digests(tmp_path / "run" / "adapter", WEIGHTS) == digests(tmp_path / "whole" / "adapter", WEIGHTS)


def test_streamed_rows_are_not_shared_among_workers(train):
    with pytest.raises(ConfigError, match=r"data\.streaming cannot split rows among dataloader workers"):
        train(data={"streaming": True, "eval": None}, training={"extra": {"dataloader_num_workers": 2}})


def test_an_edited_loss_is_refused_and_can_be_allowed(llama, rows, tmp_path):
    file = tmp_path / "my_loss.py"
    text = (
        "import torch.nn.functional as F\n"
        "from smolora_core import Loss, hookimpl\n"
        "def mine(logits, targets):\n"
        "    return F.cross_entropy(logits, targets, reduction='none')\n"
        "@hookimpl\n"
        "def smolora_losses():\n"
        "    return [Loss(name='mine', summary='mine', implementation=mine)]\n"
    )
    file.write_text(text, encoding="utf-8")
    mine = {"loss": "mine", "plugins": {"load": [str(file)]}}
    config = config_of(llama, rows, tmp_path / "run", **mine)
    with pytest.raises(Injected):
        smolora_core.train(config, plugins=(fail_at(5, "on_step_begin", "raise"),))
    file.write_text(text.replace("'none')", "'none') * 3"), encoding="utf-8")
    with pytest.raises(ConfigError, match="the code of the loss changed since the checkpoint"):
        smolora_core.train(config, resume="auto")
    assert smolora_core.train(config, resume="auto", overrides=("loss",)).steps == 6


def test_a_run_that_may_not_go_on_leaves_its_folder_as_it_was(train, rows, tmp_path):
    stopped(train)
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("run.yaml", "last_error.json")}
    other = shutil.copy(rows, tmp_path / "other.jsonl")
    Path(other).write_text(rows.read_text().replace("bad", "sad"), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        train(resume="auto", data={"train": str(other)}, training={"learning_rate": 0.5})
    assert not getattr(error.value, "__notes__", [])
    assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == kept
