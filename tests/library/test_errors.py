"""Every class of error is reached by the public names; each says where, what and what to do, and keeps its cause."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from transformers import TrainerCallback

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
    hookimpl,
    load,
)
from smolora_core.lora.saving import verify_saved

ROWS = [{"text": f"the film was good, said {number} of us"} for number in range(8)]


def lora(base: Path, folder: Path, rows: object = ROWS, **more: object) -> SmoLoRA:
    training = TrainingConfig(max_steps=2, max_seq_length=64, gradient_accumulation_steps=1)
    return SmoLoRA(str(base), rows, output_dir=str(folder / "run"), training=training, **more)


@pytest.fixture(scope="module")
def trained(llama, tmp_path_factory) -> SmoLoRA:
    made = lora(llama, tmp_path_factory.mktemp("trained"))
    made.train()
    return made


def adapter_of(trained: SmoLoRA, folder: Path) -> Path:
    """Copy an adapter that nothing vouches for."""
    copied = shutil.copytree(Path(trained.resolved.config.output_dir) / "adapter", folder / "adapter")
    (copied / "manifest.json").unlink()
    return copied


def changed(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


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


DAMAGED_BASES = {
    "weights cut off": ("model.safetensors", None, "model.safetensors is truncated"),
    "a tokenizer that is no object": ("tokenizer.json", b"[]", "'str' object cannot be interpreted as an integer"),
    "a tokenizer's config that is no object": ("tokenizer_config.json", b"[1]", "'list' object has no attribute 'get'"),
    "generation defaults that are no object": ("generation_config.json", b"[1]", "'list' object is not a mapping"),
}


@pytest.mark.parametrize("kind", DAMAGED_BASES)
def test_a_damaged_base_model(llama, tmp_path, kind):
    name, content, message = DAMAGED_BASES[kind]
    base = shutil.copytree(llama, tmp_path / "base")
    (base / name).write_bytes((base / name).read_bytes()[:5000] if content is None else content)
    with pytest.raises(ModelLoadError) as error:
        lora(base, tmp_path).train()
    assert message in str(error.value)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", "x", "Validation error for field 'hidden_size': TypeError: Field 'hidden_size' expected int, got str"),
        ("num_attention_heads", 7, "ValueError: The hidden size (32) is not a multiple of the number of attention heads (7)."),
        ("hidden_act", "nope", "'nope'"),
    ],
)
def test_a_base_model_whose_config_makes_no_model(llama, tmp_path, key, value, message):
    base = shutil.copytree(llama, tmp_path / "base")
    changed(base / "config.json", **{key: value})
    with pytest.raises(ModelLoadError) as error:
        lora(base, tmp_path).train()
    assert message in str(error.value)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "tokenizer_config.json"])
def test_a_damaged_adapter(trained, tmp_path, name):
    folder = adapter_of(trained, tmp_path)
    (folder / name).write_bytes(b"[]")
    with pytest.raises(ModelLoadError) as error:
        load(folder)
    assert str(error.value).startswith(f"cannot load {str(folder)!r} (")
    assert error.value.__cause__ is not None


def test_an_adapter_of_another_rank_is_told_from_what(trained, tmp_path):
    folder = adapter_of(trained, tmp_path)
    changed(folder / "adapter_config.json", r=3)
    with pytest.raises(ModelLoadError, match=r"size mismatch for .*lora_A.* torch\.Size\(\[3, 32\]\)"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", b'[{"text": "a"}, {"text": ]', "is not JSON"),
        ("rows.jsonl.gz", b"\x1f\x8bgarbage", "cannot be decompressed"),
        ("rows.parquet", b"PAR1garbagePAR1", "cannot be read as Parquet"),
        ("rows.csv", b'text\n"never closed', "is not CSV"),
    ],
)
def test_a_damaged_data_file(llama, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        lora(llama, tmp_path, str(tmp_path / name)).train()
    assert error.value.__cause__ is not None


def test_a_model_that_cannot_compute_a_batch(llama, tmp_path):
    class Breaking:
        @hookimpl
        def smolora_adapter_attached(self, model, run):
            def fail(*given):
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

            model.get_base_model().model.layers[1].register_forward_pre_hook(fail)

    with pytest.raises(TrainingError) as error:
        lora(llama, tmp_path, plugins=[Breaking()]).train()
    assert str(error.value) == (
        "the model fails on a batch of 1x8 tokens (RuntimeError: mat1 and mat2 shapes cannot be multiplied)"
    )
    assert isinstance(error.value.__cause__, RuntimeError)


class _After(TrainerCallback):
    """Does something when a step has ended, and offers itself as a plugin."""

    def __init__(self, action):
        self._action = action

    @hookimpl
    def smolora_callbacks(self, run):
        return [self]

    def on_step_end(self, arguments, state, control, **more):
        self._action(**more)


def kill_loaders(**more):
    for process in multiprocessing.active_children():
        process.kill()


def break_optimizer(optimizer, **more):
    def fail(*given, **named):
        raise RuntimeError("expected all tensors to be on the same device")

    optimizer.step = fail


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            kill_loaders,
            r"^training failed after step \d+ \(.*\); set training\.extra\.dataloader_num_workers to 0",
        ),
        (
            break_optimizer,
            r"^training failed after step 1 \(RuntimeError: expected all tensors to be on the same device\)$",
        ),
    ],
)
def test_what_fails_in_torch_while_training(llama, tmp_path, action, message):
    training = TrainingConfig(
        max_steps=20,
        max_seq_length=64,
        # More micro-batches than are loaded ahead.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        extra={"dataloader_num_workers": 1},
    )
    made = SmoLoRA(str(llama), ROWS, output_dir=str(tmp_path / "run"), training=training, plugins=[_After(action)])
    with pytest.raises(TrainingError, match=message) as error:
        made.train()
    assert isinstance(error.value.__cause__, RuntimeError | ConnectionError | EOFError)


def test_a_saved_adapter_that_cannot_be_read_back(trained, tmp_path):
    folder = adapter_of(trained, tmp_path)
    shutil.copytree(folder, tmp_path / "whole")
    (folder / "adapter_model.safetensors").write_bytes(b"\x08")
    with pytest.raises(CheckpointError, match="the saved adapter cannot be read back") as error:
        verify_saved(load(folder.with_name("whole")).model, folder)
    assert error.value.__cause__ is not None


def test_a_damaged_manifest(trained, tmp_path):
    folder = adapter_of(trained, tmp_path)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest\.json") as error:
        load(folder)
    assert error.value.__cause__ is not None
