"""A saved adapter is identical to the trained one, bit by bit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from smolora_core.errors import CheckpointError
from smolora_core.lora.saving import verify_saved

NAME = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def saved(adapt, llama, tmp_path):
    model = adapt(llama).model
    with torch.no_grad():
        model.get_parameter(NAME.replace(".weight", ".default.weight"))[0, 0] = 0.0
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    return model, tmp_path


def message(model, folder):
    with pytest.raises(CheckpointError) as error:
        verify_saved(model, folder)
    return str(error.value).removeprefix(f"{folder} ")


def rewrite(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("place", [-1, -2, -1000])
@pytest.mark.parametrize("bit", [1, 128])
def test_a_flipped_bit_is_found(saved, place, bit):
    model, folder = saved
    file = folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= bit
    file.write_bytes(content)
    assert message(model, folder).endswith("differs from the trained one")


def test_a_zero_that_lost_its_sign_is_found(saved):
    model, folder = saved

    def negate(tensors):
        assert tensors[NAME][0, 0] == 0
        tensors[NAME][0, 0] = -0.0

    rewrite(folder, negate)
    assert message(model, folder) == f"tensor {NAME!r} differs from the trained one"


@pytest.mark.parametrize(
    "change", [lambda tensors: tensors.pop(NAME), lambda tensors: tensors.update({NAME + "2": torch.ones(1)})]
)
def test_a_tensor_too_few_or_too_many_is_found(saved, change):
    model, folder = saved
    rewrite(folder, change)
    expected = f"the saved adapter has different tensors than the trained one (first: {NAME!r}"[:-1]
    assert message(model, folder).startswith(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_another_number_format_is_found(saved, dtype):
    model, folder = saved
    rewrite(folder, lambda tensors: tensors.update({NAME: tensors[NAME].to(dtype)}))
    assert message(model, folder) == f"tensor {NAME!r} differs from the trained one"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_no_adapter(saved, value):
    model, folder = saved
    with torch.no_grad():
        model.get_parameter(NAME.replace(".weight", ".default.weight"))[0, 0] = value
    model.save_pretrained(folder, save_embedding_layers=False)
    assert message(model, folder) == f"tensor {NAME!r} has non-finite values"


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:50])])
def test_a_file_that_cannot_be_read_is_named(saved, damage):
    model, folder = saved
    damage(folder / "adapter_model.safetensors")
    assert message(model, folder).startswith(f"{folder / 'adapter_model.safetensors'} the saved adapter cannot be read back (")
