"""Tensors that do not learn are named."""

import math

import pytest
import torch

from smolora_core import train
from smolora_plugins.learning.callback import LearningGuard
from tests.support.runs import config_of, events, rows_in
from tests.support.small_run import cross_entropy, load, objective, rows, trainer

SPLIT = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}


def guarded(model, folder, steps, measure=None, rate=1e-2):
    said = []
    made = trainer(
        model, measure or objective(cross_entropy, model), folder, rows(), max_steps=steps, learning_rate=rate, **SPLIT
    )
    made.add_callback(LearningGuard(said.append))
    made.train()
    return said


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_an_adapter_that_learns_is_not_spoken_of(tmp_path, llama, steps):
    model = load(llama)
    assert guarded(model, tmp_path, steps) == []


def test_steps_that_half_precision_skips_do_not_count(tmp_path, llama):
    """The first ones, until the scale fits the gradient."""
    model, said, many = load(llama), [], rows([(0, 60)] * 32)
    split = {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 1, "max_steps": 8}
    made = trainer(model, objective(cross_entropy, model), tmp_path, many, extra={"fp16": True}, **split)
    made.add_callback(LearningGuard(said.append))
    made.train()
    skipped = [entry["step"] for entry in made.state.log_history if not math.isfinite(entry.get("grad_norm", 0.0))]
    assert skipped[:3] == [1, 2, 3]
    assert said == []


def test_tensors_without_a_gradient_are_named(tmp_path, llama):
    model = load(llama)
    layer = model.get_base_model().model.layers[1].mlp
    layer.down_proj.forward = layer.down_proj.base_layer.forward
    name = "base_model.model.model.layers.1.mlp.down_proj.lora_{}.default.weight"
    assert guarded(model, tmp_path, 5) == [
        f"2 of 12 trainable tensors had no gradient in 3 steps: {name.format('A')}, {name.format('B')}"
    ]


def test_many_tensors_are_not_all_named(tmp_path, llama):
    model = load(llama)
    bias = torch.nn.Parameter(torch.zeros(()))
    model.get_base_model().model.extra = bias

    def of_something_else(model, batch):
        return bias + 1, torch.tensor(1.0)

    (said,) = guarded(model, tmp_path, 3, objective(of_something_else, model, kind="model"))
    assert said.startswith("12 of 13 trainable tensors had no gradient in 3 steps: base_model.model.model.layers.0")
    assert said.endswith(" and 9 more")


def test_tensors_that_do_not_move_are_named(tmp_path, llama):
    (said,) = guarded(load(llama), tmp_path, 2, rate=1e-30)
    assert said.startswith("12 of 12 trainable tensors have not changed in 2 steps: ")


def test_a_run_warns_of_them(llama, tmp_path):
    train(config_of(llama, rows_in(tmp_path), tmp_path / "run", training={"learning_rate": 1e-30}))
    texts = [each["text"] for each in events(tmp_path / "run", "warning")]
    assert any("trainable tensors have not changed in 3 steps: " in text for text in texts)
