"""An adapter is a plain PEFT adapter: reproducible, and loaded by others without us."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from smolora_core.errors import ModelLoadError
from smolora_core.lora.merge import merge_and_save
from smolora_core.lora.saving import verify_saved
from tests.support.adapters import save, write_fresh

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.arange(3, 20)[None]


@pytest.fixture(params=["llama", "gpt2"])
def base(request):
    return request.getfixturevalue(request.param)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_what_is_adapted_is_counted(adapt, llama):
    adapted = adapt(llama, ("q_proj",), r=4)
    assert adapted.trainable == 2 * 4 * (32 + 32)
    assert adapted.total == sum(parameter.numel() for parameter in adapted.model.parameters()) - adapted.trainable


def test_only_the_adapter_is_trained_in_float32(adapt, base):
    trained = {name: each.dtype for name, each in adapt(base).model.named_parameters() if each.requires_grad}
    assert all("lora_" in name for name in trained)
    assert set(trained.values()) == {torch.float32}


def test_a_fresh_adapter_depends_on_its_seed_alone(adapt, llama):
    torch.manual_seed(11)
    first = adapt(llama, seed=1).model
    torch.manual_seed(12)
    second, third = adapt(llama, seed=1).model, adapt(llama, seed=2).model
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), third.get_parameter(name))


def test_attaching_leaves_the_random_numbers_alone(llama, tmp_path):
    before = torch.get_rng_state()
    write_fresh(llama, tmp_path / "adapter")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("how", ["transformers", "peft"])
def test_others_load_it_from_another_working_directory(adapt, base, tmp_path, monkeypatch, how):
    model = adapt(base).model
    folder = save(model, base, tmp_path / "adapter")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    if how == "transformers":
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    else:
        loaded = PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-6)


def test_its_folder_holds_the_adapter_and_the_tokenizer(adapt, llama, tmp_path):
    folder = save(adapt(llama).model, llama, tmp_path / "adapter")
    assert {path.name for path in folder.iterdir()} == {
        *("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json"),
    }


def test_its_config_says_what_was_asked_for(adapt, base, tmp_path):
    config = json.loads((save(adapt(base, r=4, alpha=12).model, base, tmp_path / "a") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert Path(config["base_model_name_or_path"]).is_absolute()
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["task_type"]) == (4, 12, 0.1, "CAUSAL_LM")
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["fan_in_fan_out"] is (base.name == "gpt2")


def test_attaching_to_gpt2_warns_of_nothing(adapt, gpt2, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(adapt(gpt2).model, gpt2, tmp_path / "adapter")


@pytest.mark.slow
def test_another_process_writes_the_same_files(llama, tmp_path):
    source = (
        "from pathlib import Path; from tests.support.adapters import write_fresh; "
        f"write_fresh(Path({str(llama)!r}), Path('there'))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", source], check=True, env=environment, cwd=tmp_path, timeout=120)
    assert write_fresh(llama, tmp_path / "here") == {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}


def test_a_merged_folder_computes_what_the_adapter_computes(adapt, base, tmp_path):
    model = adapt(base).model
    folder = merge_and_save(model, transformers.AutoTokenizer.from_pretrained(base), tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(merged), logits(model), rtol=1e-5, atol=1e-5)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_merging_leaves_the_model_as_it_was(adapt, base, tmp_path):
    model = adapt(base).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merge_and_save(model, transformers.AutoTokenizer.from_pretrained(base), tmp_path / "merged")
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_merging_does_not_write_into_a_folder_that_holds_something(adapt, llama, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ModelLoadError) as error:
        merge_and_save(adapt(llama).model, None, tmp_path)
    assert str(error.value) == f"the folder {str(tmp_path)!r} is not empty; choose a new folder"


def test_what_was_saved_is_proved(adapt, base, tmp_path):
    model = adapt(base).model
    folder = save(model, base, tmp_path / "adapter")
    assert verify_saved(model, folder) == len(load_file(folder / "adapter_model.safetensors"))
