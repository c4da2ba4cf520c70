"""Reading a model folder without torch, and the errors for a damaged one."""

import json
import shutil

import pytest

from smolora_core.errors import ModelLoadError
from smolora_core.model.header import read_header


@pytest.fixture
def copied(llama, tmp_path):
    return shutil.copytree(llama, tmp_path / "model")


def message(folder):
    with pytest.raises(ModelLoadError) as error:
        read_header(folder, "run.yaml:1")
    return str(error.value)


def test_a_header_holds_the_config_and_the_shapes(llama):
    header = read_header(llama)
    assert header.model_type == "llama"
    assert header.shapes["model.layers.1.self_attn.k_proj.weight"] == (16, 32)


def test_no_head_and_no_embedding_is_a_module_to_adapt(llama, gpt2):
    assert {module.split(".")[-1] for folder in (llama, gpt2) for module in read_header(folder).modules} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        *("c_attn", "c_proj", "c_fc"),
    }


def test_files_that_transformers_does_not_load_do_not_count(copied):
    (copied / "consolidated.safetensors").write_bytes(b"another format")
    assert read_header(copied).modules


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_file_that_is_cut_off_is_damaged(copied, length):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    assert message(copied).startswith(f"run.yaml:1 the model in {str(copied)!r} is damaged (")


def test_a_missing_shard_is_named(copied):
    (copied / "model.safetensors").unlink()
    index = {"weight_map": {"a.weight": "model-00001-of-00002.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "model-00001-of-00002.safetensors" in message(copied)


def test_a_folder_that_is_not_there(copied):
    assert message(copied.with_name("modle")) == (
        f"run.yaml:1 no folder {str(copied.with_name('modle'))!r} with a config.json; did you mean {str(copied)!r}?"
    )
