"""Memory strategies in runs: chosen by name, refused where they do nothing, and brought by third parties."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from smolora_core import ConfigError, MemoryStrategy, PluginError, SmoLoRA, TrainingConfig, hookimpl

ROWS = [{"text": f"the film was good, said {number} of us"} for number in range(8)]


def lora(llama: Path, folder: Path, memory: object, **more: object) -> SmoLoRA:
    training = TrainingConfig(
        max_steps=2, max_seq_length=64, gradient_accumulation_steps=1, logging_steps=1, learning_rate=1e-2
    )
    return SmoLoRA(str(llama), ROWS, output_dir=str(folder), memory=memory, training=training, **more)


def adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("every", [1, 2])
def test_checkpointed_layers_learn_the_same(llama, tmp_path, every):
    lora(llama, tmp_path / "plain", "none").train()
    lora(llama, tmp_path / "checkpointed", [{"name": "activation-checkpointing", "every_n_layers": every}]).train()
    assert adapter(tmp_path / "plain") == adapter(tmp_path / "checkpointed")


@pytest.mark.parametrize(("every", "layers"), [(1, [0, 1, 2]), (2, [0, 2])])
def test_every_nth_layer_is_checkpointed(tmp_path, every, layers):
    from tests.support.models import save_llama

    base = save_llama(tmp_path / "base", num_hidden_layers=3)
    found = []

    class Looking:
        @hookimpl
        def smolora_adapter_attached(self, model, run):
            every_layer = model.get_base_model().model.layers
            found.extend(index for index, layer in enumerate(every_layer) if layer.gradient_checkpointing)

    memory = [{"name": "activation-checkpointing", "every_n_layers": every}]
    lora(base, tmp_path / "run", memory, plugins=[Looking()]).train()
    assert found == layers


def test_what_is_chosen_is_told_and_written_down_with_its_options(llama, tmp_path):
    told = []
    lora(llama, tmp_path / "run", ["activation-checkpointing"], listener=told.append).train()
    assert next(event.values for event in told if event.kind == "memory") == {
        "strategies": ["activation-checkpointing every_n_layers=1"]
    }
    written = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["memory"]
    assert written == [{"name": "activation-checkpointing", "every_n_layers": 1}]


@pytest.mark.parametrize(("name", "devices"), [("offload-activations", "cuda"), ("clear-cache", "cuda and mps")])
def test_a_strategy_for_other_devices_is_refused(llama, tmp_path, name, devices):
    with pytest.raises(ConfigError) as error:
        lora(llama, tmp_path / "run", [name], model={"device": "cpu"}).train()
    what = f"the memory strategy {name} (smolora 0.1.0) supports {devices}, but the run uses cpu"
    assert str(error.value) == f"given from Python {what}; remove it"


@pytest.mark.parametrize("package", ["bitsandbytes", "torchao"])
def test_a_package_that_is_missing_is_named_before_rows_are_read(llama, tmp_path, monkeypatch, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("smolora_plugins.memory.quantised.find_spec", lambda name: None)
    kind = {"bitsandbytes": "nf4", "torchao": "torchao-int8"}[package]
    with pytest.raises(ConfigError) as error:
        lora(llama, tmp_path / "run", [{"name": "quantised", "format": kind}]).train()
    assert str(error.value) == (
        f"memory: format {kind} of quantised needs {package}, which is not installed; pip install 'smolora[quant]'"
    )
    assert not (tmp_path / "run" / "ledger.json").exists()


class Sparing:
    """A third party's strategy, with every method there is but that for when memory has run out."""

    told: list[str] = []

    def __init__(self, *, attention: str) -> None:
        self.attention = attention

    def load_kwargs(self, run):
        self.told.append(f"load_kwargs {run.device}")
        return {"attn_implementation": self.attention}

    def model_ready(self, model, run):
        self.told.append(f"model_ready {model.config._attn_implementation}")

    def step_finished(self, step, run):
        self.told.append(f"step_finished {step}")

    def run_finished(self, run):
        self.told.append("run_finished")


def test_a_third_party_brings_one(llama, tmp_path):
    import attrs

    options = attrs.make_class("Options", {"attention": attrs.field(type=str, default="sdpa")})

    class Acme:
        @hookimpl
        def smolora_memory_strategies(self):
            yield MemoryStrategy(
                name="sparing", summary="spare some", devices=("cpu",), default=True, options=options, implementation=Sparing
            )

    Sparing.told.clear()
    lora(llama, tmp_path / "run", [{"name": "sparing", "attention": "eager"}], plugins=[Acme()]).train()
    assert Sparing.told == ["load_kwargs cpu", "model_ready eager", "step_finished 1", "step_finished 2", "run_finished"]
    # `memory: auto` switches it on too, because it says so.
    Sparing.told.clear()
    lora(llama, tmp_path / "auto", "auto", plugins=[Acme()]).train()
    assert Sparing.told[:2] == ["load_kwargs cpu", "model_ready sdpa"]


def test_strategies_hear_of_the_end_of_a_run_that_failed(llama, tmp_path):
    class Acme:
        @hookimpl
        def smolora_memory_strategies(self):
            yield MemoryStrategy(name="sparing", summary="", devices=("cpu",), implementation=lambda: None)

        @hookimpl
        def smolora_adapter_attached(self, model, run):
            raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        lora(llama, tmp_path / "run", "auto", plugins=[Acme()]).train()
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert "failed" in events


def test_both_kinds_of_checkpointing_at_once_are_refused(llama):
    from types import SimpleNamespace

    import peft
    import transformers

    from smolora_plugins.memory.activation_checkpointing import CheckpointLayers

    base = transformers.AutoModelForCausalLM.from_pretrained(llama)
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"]))
    run = SimpleNamespace(device=torch.device("cpu"))
    CheckpointLayers(every_n_layers=1).model_ready(model, run)
    with pytest.raises(ConfigError, match="activation checkpointing is already on; use either"):
        CheckpointLayers(every_n_layers=1).model_ready(model, run)


def test_an_option_that_does_not_exist_is_named(llama, tmp_path):
    with pytest.raises(PluginError, match=r"unknown key 'evry_n_layers' .* did you mean 'every_n_layers'\?"):
        lora(llama, tmp_path / "run", [{"name": "activation-checkpointing", "evry_n_layers": 2}]).train()
