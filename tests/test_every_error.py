"""Every class of error is reached by the public names, says where, what and what to do, and keeps what caused it."""

import shutil
from pathlib import Path

import pytest

from smolora_core import (
    CheckpointError,
    ConfigError,
    DatasetError,
    LoRAConfig,
    ModelLoadError,
    PluginError,
    SmoLoRA,
    SmoLoRAError,
    TrainingConfig,
    TrainingError,
    load,
)

ROWS = [{"text": f"the film was good, said {number} of us"} for number in range(8)]


def lora(llama: Path, folder: Path, rows: object = ROWS, **more: object) -> SmoLoRA:
    training = TrainingConfig(max_steps=2, max_seq_length=64, gradient_accumulation_steps=1)
    return SmoLoRA(str(llama), rows, output_dir=str(folder / "run"), training=training, **more)


def test_a_config_error(llama, tmp_path):
    with pytest.raises(ConfigError) as error:
        lora(llama, tmp_path, lora=LoRAConfig(r=8.5))
    assert str(error.value) == "given from Python lora.r must be an integer, got 8.5"


def test_a_dataset_error(llama, tmp_path):
    missing = tmp_path / "rows.jsonl"
    with pytest.raises(DatasetError, match=r"rows\.jsonl"):
        lora(llama, tmp_path, str(missing)).train()


def test_a_plugin_error(llama, tmp_path):
    with pytest.raises(PluginError) as error:
        lora(llama, tmp_path, loss="focl").train()
    assert str(error.value) == "given from Python no loss is named 'focl'; did you mean 'focal'?"


def test_a_model_load_error_keeps_its_cause(llama, tmp_path):
    base = shutil.copytree(llama, tmp_path / "base")
    (base / "config.json").write_text('{"model_type": "llama"')
    with pytest.raises(ModelLoadError, match="is damaged") as error:
        lora(base, tmp_path).train()
    assert isinstance(error.value.__cause__, ValueError | OSError)


def test_a_training_error(llama, tmp_path):
    with pytest.raises(TrainingError) as error:
        lora(llama, tmp_path).generate("the film")
    assert str(error.value) == "the model has not been trained; call train() or load_model(folder)"


def test_a_checkpoint_error(llama, tmp_path):
    made = lora(llama, tmp_path)
    made.train()
    weights = next((tmp_path / "run").glob("adapter/adapter_model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        load(tmp_path / "run" / "adapter")


def test_all_of_them_are_one_kind_and_say_who_was_at_fault():
    kinds = (ConfigError, DatasetError, PluginError, ModelLoadError, TrainingError, CheckpointError)
    assert {kind: issubclass(kind, SmoLoRAError) and kind.exit_code for kind in kinds} == {
        ConfigError: 2,
        DatasetError: 2,
        PluginError: 2,
        ModelLoadError: 2,
        TrainingError: 1,
        CheckpointError: 1,
    }
