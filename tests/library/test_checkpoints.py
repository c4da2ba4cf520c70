"""Checkpoints of a training loop that is not ours."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from smolora_core.checkpoints.lock import lock_folder
from smolora_core.checkpoints.retention import INDEX, Keep
from smolora_core.errors import ConfigError
from smolora_core.library.checkpoints import CheckpointManager


@pytest.fixture
def adapted(llama):
    base = transformers.AutoModelForCausalLM.from_pretrained(llama)
    return peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"))


def test_an_adapter_is_saved_as_peft_does(tmp_path, llama, adapted):
    place = CheckpointManager(tmp_path).save_checkpoint(adapted, 100, {"eval_loss": 0.4}, {"lr": 2e-4})
    assert place == tmp_path / "checkpoint-100"
    ids = torch.arange(5)[None]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(place)
    assert torch.equal(loaded(ids).logits, adapted.eval()(ids).logits)


def test_a_model_of_transformers_is_saved_as_that_does(tmp_path, llama):
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    place = CheckpointManager(tmp_path).save_checkpoint(model, 1)
    ids = torch.arange(5)[None]
    assert torch.equal(transformers.AutoModelForCausalLM.from_pretrained(place)(ids).logits, model(ids).logits)


def test_of_any_other_module_the_tensors_are_saved(tmp_path):
    model = torch.nn.Linear(2, 3)
    place = CheckpointManager(str(tmp_path)).save_checkpoint(model, 1)
    saved = load_file(place / "model.safetensors")
    assert {name: tensor.tolist() for name, tensor in saved.items()} == {
        name: tensor.tolist() for name, tensor in model.state_dict().items()
    }


def test_what_was_saved_is_listed(tmp_path):
    manager = CheckpointManager(tmp_path / "mine")
    assert (manager.list(), manager.latest()) == ((), None)
    for step, loss in ((1, 0.5), (2, float("nan"))):
        manager.save_checkpoint(torch.nn.Linear(1, 1), step, {"loss": loss}, {"lr": 0.1})
    assert [(each.manifest.step, dict(each.manifest.metrics)) for each in manager.list()] == [
        (1, {"loss": 0.5}),
        (2, {"loss": None}),
    ]
    listed = json.loads((tmp_path / "mine" / INDEX).read_text())["checkpoints"]
    assert [(entry["step"], entry["config"], entry["path"]) for entry in listed] == [
        (step, {"lr": 0.1}, str(tmp_path / "mine" / f"checkpoint-{step}")) for step in (1, 2)
    ]


def test_the_latest_is_one_that_is_whole(tmp_path):
    manager = CheckpointManager(tmp_path)
    for step in (1, 2):
        manager.save_checkpoint(torch.nn.Linear(1, 1), step)
    assert CheckpointManager(tmp_path).latest() == tmp_path / "checkpoint-2"
    (tmp_path / "checkpoint-2" / "model.safetensors").write_bytes(b"")
    assert manager.latest() == tmp_path / "checkpoint-1"


def test_old_ones_go_if_asked(tmp_path):
    manager = CheckpointManager(tmp_path, keep=Keep(latest=2))
    for step in (1, 2, 3):
        manager.save_checkpoint(torch.nn.Linear(1, 1), step)
    assert [each.manifest.step for each in manager.list()] == [2, 3]


def test_the_folder_of_a_run_that_goes_on_is_refused(tmp_path):
    with lock_folder(tmp_path), pytest.raises(ConfigError, match="the run folder is locked by another process"):
        CheckpointManager(tmp_path).save_checkpoint(torch.nn.Linear(1, 1), 1)
