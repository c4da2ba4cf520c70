"""Loading a base model and its tokenizer."""

import shutil

import pytest
import torch
import transformers

from smolora_core import Task
from smolora_core.batches.tokens import padding_id
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.errors import ModelLoadError
from smolora_core.model.load import base_source, load_base, load_tokenizer, read_config
from tests.support.models import save_tokenizer

CPU = torch.device("cpu")
CAUSAL = Task(
    name="causal-lm", summary="", implementation="here:Here", model_class="AutoModelForCausalLM", loss="cross-entropy"
)


def config(path, **keys):
    return resolve(Document({"model": {"path": str(path), **keys}, "data": {"train": "rows"}}, {})).config.model


def load(path, **keys):
    model = config(path, **keys)
    return load_base(model, CAUSAL, CPU, read_config(model))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_is_frozen_and_in_its_format(llama, dtype):
    base = load(llama, dtype=dtype)
    assert {(each.dtype, each.requires_grad) for each in base.model.parameters()} == {(getattr(torch, dtype), False)}


def test_a_relative_folder_is_named_in_full(llama, monkeypatch):
    monkeypatch.chdir(llama.parent)
    assert base_source(config(f"./{llama.name}")) == str(llama)
    assert base_source(config("someone/model")) == "someone/model"


def test_missing_weights_are_named(llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "model")
    transformers.LlamaModel.from_pretrained(llama).save_pretrained(folder)
    with pytest.raises(ModelLoadError) as error:
        load(folder, dtype="float32")
    assert str(error.value) == f"{folder} has no weights for 1 tensors (first: 'lm_head.weight'); is it a causal-lm model?"


@pytest.mark.parametrize("length", [0, 3000, -100])
def test_a_damaged_file_is_an_error_of_the_model(llama, tmp_path, length):
    folder = shutil.copytree(llama, tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ModelLoadError) as error:
        load(folder, dtype="float32")
    assert str(error.value).startswith(f"cannot load {str(folder)!r} (")
    assert str(error.value).endswith("; check the folder")


def test_a_hub_id_needs_the_network():
    with pytest.raises(ModelLoadError) as error:
        read_config(config("someone/no-such-model"), "run.yaml:1")
    assert str(error.value).startswith("run.yaml:1 cannot load 'someone/no-such-model' (")
    assert str(error.value).endswith("; a hub id needs the network (HF_HUB_OFFLINE is set)")


@pytest.mark.parametrize(
    ("special", "fills"),
    [({"pad": True}, "<pad>"), ({}, "</s>"), ({"eos": False, "pad": True}, "<pad>"), ({"eos": False}, "<s>")],
)
def test_what_fills_a_batch_up(llama, tmp_path, special, fills):
    folder = shutil.copytree(llama, tmp_path / "model")
    save_tokenizer(folder, **special)
    tokenizer = load_tokenizer(config(folder))
    assert tokenizer.convert_ids_to_tokens(padding_id(tokenizer)) == fills


def test_a_tokenizer_is_left_as_it_is(llama):
    assert load_tokenizer(config(llama)).pad_token is None
