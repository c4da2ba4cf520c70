"""From a config to the Trainer's arguments: nothing that the user says is lost on the way."""

from pathlib import Path

import pytest
import torch

from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.errors import ConfigError
from smolora_core.training.arguments import make_arguments, unknown_arguments


def arguments(evaluates=False, **sections):
    config = resolve(Document({"model": {"path": "here"}, "data": {"train": "rows"}, **sections}, {})).config
    return make_arguments(config, Path("there"), torch.device("cpu"), evaluates=evaluates)


@pytest.mark.parametrize(
    ("sections", "name", "value"),
    [
        ({}, "output_dir", "there"),
        ({}, "use_cpu", True),
        ({"seed": 7}, "seed", 7),
        ({"training": {"learning_rate": 0.5}}, "learning_rate", 0.5),
        ({"training": {"per_device_train_batch_size": 3}}, "per_device_train_batch_size", 3),
        ({"training": {"gradient_accumulation_steps": 5}}, "gradient_accumulation_steps", 5),
        ({"training": {"max_steps": 9}}, "max_steps", 9),
        ({"checkpoints": {"save_steps": 11}}, "save_steps", 11),
        ({"training": {"extra": {"warmup_steps": 4}}}, "warmup_steps", 4),
        ({"training": {"extra": {"lr_scheduler_type": "cosine"}}}, "lr_scheduler_type", "cosine"),
    ],
)
def test_a_key_becomes_an_argument(sections, name, value):
    assert getattr(arguments(**sections), name) == value


@pytest.mark.parametrize(("evaluates", "strategy"), [(True, "steps"), (False, "no")])
def test_rows_held_out_are_evaluated(evaluates, strategy):
    assert arguments(evaluates=evaluates).eval_strategy == strategy


MISTAKES = {
    "warmup_step": "transformers.TrainingArguments has no 'warmup_step'; did you mean 'warmup_steps'?",
    "learning_rate": "'learning_rate' has its own config key; set training.learning_rate",
    "save_total_limit": "'save_total_limit' has its own config key; set checkpoints.keep",
    "label_smoothing_factor": "'label_smoothing_factor' has no effect here; choose a loss",
    "warmup_ratio": "transformers.TrainingArguments has no 'warmup_ratio'; set warmup_steps to a fraction below 1",
    "load_best_model_at_end": "'load_best_model_at_end' has no effect here; set training.final_adapter",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_argument_that_would_be_lost_is_refused(name):
    with pytest.raises(ConfigError) as error:
        arguments(training={"extra": {name: 1}})
    assert str(error.value) == f"training.extra: {MISTAKES[name]}"


def test_all_mistakes_are_named_at_once():
    problems = unknown_arguments(dict.fromkeys([*MISTAKES, "warmup_steps"]), "run.yaml:7")
    assert [str(problem) for problem in problems] == [f"run.yaml:7 {message}" for message in MISTAKES.values()]


def test_a_value_that_transformers_refuses_is_an_error_of_the_config():
    with pytest.raises(ConfigError) as error:
        arguments(training={"extra": {"optim": "adamm"}})
    message = "training.extra: transformers.TrainingArguments rejects it (adamm is not a valid OptimizerNames"
    assert str(error.value).startswith(message)
