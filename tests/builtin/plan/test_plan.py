"""`smolora plan`: memory that is predicted without weights, and what would make a run fit."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from smolora_core import MemoryStrategy, hookimpl
from smolora_core.cli import main
from smolora_core.components import Loss
from smolora_core.config import load_config
from smolora_core.fast.apply import make_fast
from smolora_core.plugins import PluginChoice, PluginManager, build
from smolora_core.run.check import check_run
from smolora_core.training.objective import make_objective
from smolora_plugins.plan.estimate import Plan, make_plan
from smolora_plugins.plan.fake_model import empty_model, fill
from smolora_plugins.plan.fake_step import fake_step, without_data

CPU = torch.device("cpu")
GB = 2**30


def write_run(folder: Path, model: Path, **training: object) -> Path:
    rows = [{"prompt": f"row {number}", "completion": " the film was good" * number} for number in range(1, 13)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {
        "model": {"path": str(model), "dtype": "float32", "device": "cpu"},
        "data": {"train": str(folder / "rows.jsonl"), "max_seq_length": 64},
        "output_dir": str(folder / "run"),
        "training": training,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


def plan_of(config: Path, *plugins: object, **more: object) -> Plan:
    return make_plan(check_run(load_config(config, []), PluginManager.create(PluginChoice(objects=plugins))), **more)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "bloom"])
def test_a_step_without_data_takes_the_bytes_of_a_real_one(family):
    from smolora_plugins.tasks.causal_lm import CausalLM
    from tests.support.families import make

    model, task = make(family), CausalLM()
    collate = make_fast(model, task, "token").batching.collate
    chosen = PluginManager.create().registry.resolve(Loss, "cross-entropy")
    objective = make_objective(chosen, build(chosen), model)
    rows = [{"input_ids": [5] * length, "labels": [-100, *[5] * (length - 1)]} for length in (40, 9)]
    batch = collate(rows) if collate else task.collate(rows, 0)

    real = fake_step(model, objective, batch)
    without_data(model, CPU)
    found = fake_step(model, objective, batch)

    assert (found.activations, found.loss) == (real.activations, real.loss)
    assert real.activations > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "gemma3", "olmo2"])
def test_without_weights_a_model_is_computed_as_with_them(family):
    import peft

    from smolora_plugins.tasks.causal_lm import CausalLM
    from tests.support.families import CONFIGS, make

    real = make(family)
    empty = empty_model("AutoModelForCausalLM", CONFIGS[family](), torch.float32)
    empty = peft.get_peft_model(empty, real.peft_config["default"])
    fill(empty)
    found, expected = (list(make_fast(model, CausalLM(), "token").describe()) for model in (empty, real))
    assert found == expected


def test_the_longest_rows_make_the_micro_batch(llama, tmp_path):
    found = plan_of(write_run(tmp_path, llama, per_device_train_batch_size=2))
    assert (found.rows, found.longest, found.looked_at) == (2, 64, None)
    assert plan_of(write_run(tmp_path, llama, max_tokens_per_batch=200)).rows == 3


def test_weights_gradients_and_moments_are_counted_exactly(llama, tmp_path):
    import transformers

    found = plan_of(write_run(tmp_path, llama)).found
    model = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    frozen = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    trained = 4 * 8 * 2 * (32 + 32 + 32 + 16 + 32 + 16 + 32 + 32)
    assert (found.weights, found.adapter, found.optimizer) == (frozen, trained, 3 * trained)


def test_more_room_makes_larger_micro_batches_where_they_are_chosen(llama, tmp_path):
    config = write_run(tmp_path, llama, per_device_train_batch_size="auto", effective_batch_size=4)
    much = plan_of(config, free=64 * GB)
    assert (much.rows, much.accumulation) == (4, 1)
    little = plan_of(config, free=2**20)
    assert (little.rows, little.accumulation, little.fits) == (1, 4, False)


class Halving:
    """A third party's strategy: half of the layers are computed again."""

    def model_ready(self, model, run):
        model.get_base_model().activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=2)


class Acme:
    @hookimpl
    def smolora_memory_strategies(self):
        yield MemoryStrategy(name="halving", summary="", devices=("cpu",), implementation=Halving)
        yield MemoryStrategy(name="idle", summary="", devices=("cpu",), implementation=lambda: None)


def test_what_does_not_fit_is_told_what_costs_least_first(llama, tmp_path):
    config = write_run(tmp_path, llama, per_device_train_batch_size=4, gradient_accumulation_steps=1)
    found = plan_of(config, Acme(), free=2**20)
    usable = [each for each in found.remedies if each.found]
    assert [each.setting for each in usable] == [
        "training: per_device_train_batch_size 2, gradient_accumulation_steps 2",
        "training: per_device_train_batch_size 1, gradient_accumulation_steps 4",
        "memory: activation-checkpointing every_n_layers=2",
        "memory: halving",
        "memory: activation-checkpointing every_n_layers=1",
        "memory: low-precision",
    ]
    assert all(each.found.peak < found.found.peak for each in usable)
    assert usable[2].slower < usable[4].slower


def test_the_command_says_what_runs_and_what_it_takes(llama, tmp_path, capsys):
    config = write_run(tmp_path, llama)
    assert main(["plan", str(config), "--free", "0.001"]) == 0
    printed = capsys.readouterr().out
    for line in ("targets  q_proj k_proj v_proj o_proj in 8 modules", "base weights", "does not fit in 1 MB free on cpu"):
        assert line in printed
    assert f"next     smolora train {config}" in printed
    assert not (tmp_path / "run").exists()

    assert main(["plan", str(config), "--json", "--free", "64"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["fits"], found["remedies"]) == (True, [])
    assert found["peak"] == sum(found["parts"].values())
