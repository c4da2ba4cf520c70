"""What is said of a model folder that is not one, or is damaged; and what a whole one says of itself."""

import json
import struct
from pathlib import Path

import pytest

from smolora_core.errors import ModelLoadError
from smolora_core.model.header import ModelHeader, is_folder, read_header


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a config and nothing else."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def weights(folder: Path, header: object, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def message(path: Path | str) -> str:
    with pytest.raises(ModelLoadError) as error:
        read_header(path)
    return str(error.value)


@pytest.mark.parametrize("config", ["[]", "3", "null", '"llama"'])
def test_a_config_that_is_no_object_is_damaged(model: Path, config: str) -> None:
    (model / "config.json").write_text(config)
    assert message(model) == f"the model in {str(model)!r} is damaged (config.json is not a JSON object)"


def test_a_header_that_is_no_object_is_damaged(model: Path) -> None:
    weights(model, [])
    assert message(model) == f"the model in {str(model)!r} is damaged (the header of model.safetensors is not a JSON object)"


@pytest.mark.parametrize(
    "entry", [{"data_offsets": [0, 0]}, {"shape": [1]}, {"shape": 3, "data_offsets": [0, 0]}, 3, {"shape": ["a"]}, []]
)
def test_a_tensor_without_a_shape_is_damaged(model: Path, entry: object) -> None:
    weights(model, {"a.weight": entry})
    assert message(model) == (
        f"the model in {str(model)!r} is damaged (model.safetensors has a tensor without a shape or data_offsets)"
    )


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_names_no_files_is_damaged(model: Path, index: str) -> None:
    (model / "model.safetensors.index.json").write_text(index)
    assert message(model).startswith(f"the model in {str(model)!r} is damaged (model.safetensors.index.json ")


def test_an_adapter_is_no_base(place: Path, smolora) -> None:
    (place / "adapter").mkdir()
    (place / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/models/base"}')
    status, _, err = smolora("check", "run.yaml", "--model", "./adapter")
    assert (status, err) == (
        2,
        "--model './adapter' is an adapter; its base model is '/models/base'; set model to its base model\n",
    )


@pytest.mark.parametrize("config", ["[]", "{}", "not json"])
def test_an_adapter_that_names_no_base_is_none_either(tmp_path: Path, config: str) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    assert message(tmp_path) == f"{str(tmp_path)!r} is an adapter; set model to its base model"


@pytest.mark.parametrize("path", [f"./{'x' * 5000}", "x" * 5000])
def test_a_path_that_no_folder_can_have_is_an_error(path: str) -> None:
    assert message(path) == f"the model in {path!r} cannot be read (config.json: File name too long)"
    assert is_folder(path) == path.startswith(".")


def test_a_file_that_cannot_be_read_is_an_error(model: Path) -> None:
    (model / "model.safetensors").symlink_to(model)
    (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    assert message(model) == f"the model in {str(model)!r} cannot be read (model.safetensors: Is a directory)"


def test_a_home_that_nobody_has_is_an_error() -> None:
    assert message("~nobody-of-this-name/model") == (
        "the model in '~nobody-of-this-name/model' cannot be read (Could not determine home directory.)"
    )


def header(config: dict[str, object]) -> ModelHeader:
    return ModelHeader(config, {}, has_weights=False, has_tokenizer=False)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"max_position_embeddings": 128}, 128),
        ({"n_positions": 64}, 64),
        ({"seq_length": 32}, 32),
        ({"text_config": {"max_position_embeddings": 128}, "max_position_embeddings": 77}, 128),
        ({"n_positions": 512, "relative_attention_num_buckets": 32}, None),
        ({"max_position_embeddings": "many", "text_config": []}, None),
        ({}, None),
    ],
)
def test_positions_have_several_names(config: dict[str, object], positions: int | None) -> None:
    assert header(config).positions == positions


@pytest.mark.parametrize(
    ("config", "size"),
    [({"vocab_size": 300}, 300), ({"text_config": {"vocab_size": 300}}, 300), ({"vocab_size": True}, None), ({}, None)],
)
def test_a_vocabulary_has_a_size(config: dict[str, object], size: int | None) -> None:
    assert header(config).vocab_size == size


def test_a_whole_model_has_weights_and_a_tokenizer(place: Path) -> None:
    found = read_header("tiny")
    assert (found.has_weights, found.has_tokenizer) == (True, True)


def test_a_config_alone_has_neither(model: Path) -> None:
    found = read_header(model)
    assert (found.has_weights, found.has_tokenizer) == (False, False)


def test_weights_and_tokenizers_have_several_formats(model: Path) -> None:
    (model / "pytorch_model.bin").touch()
    (model / "spiece.model").touch()
    found = read_header(model)
    assert (found.has_weights, found.has_tokenizer) == (True, True)
