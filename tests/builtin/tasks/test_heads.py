"""Which modules are a new head: told by what the base model has weights for."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from smolora_core.components import Task
from smolora_core.config import ModelConfig
from smolora_core.errors import ModelLoadError
from smolora_core.model.load import load_base, read_config
from smolora_core.plugins import PluginManager
from tests.support.models import save_encoder, save_llama
from tests.support.small_tasks import CASES, Watch, run_of


def loaded(folder, task="sequence-classification", seed=0, **changes):
    model = ModelConfig(path=str(folder), dtype="float32", device="cpu")
    record = PluginManager.create().registry.resolve(Task, task).component
    return load_base(model, record, torch.device("cpu"), read_config(model), None, changes, seed)


HEADS = {
    "bert of masked tokens": (lambda folder: save_encoder(folder), ("bert.pooler.dense", "classifier")),
    "bert alone": (lambda folder: save_encoder(folder, "bert", "Model"), ("classifier",)),
    "bert with a head": (lambda folder: save_encoder(folder, "bert", "ForSequenceClassification"), ("classifier",)),
    "distilbert": (lambda folder: save_encoder(folder, "distilbert"), ("classifier", "pre_classifier")),
    "llama": (save_llama, ("score",)),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_what_the_base_has_no_weights_for(tmp_path, name):
    save, heads = HEADS[name]
    base = loaded(save(tmp_path), num_labels=3)
    assert base.heads == heads
    assert base.model.config.num_labels == 3
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_head_of_other_labels_is_a_new_one(tmp_path):
    folder = save_encoder(tmp_path, "bert", "ForSequenceClassification")
    assert loaded(folder, num_labels=5).model.classifier.weight.shape == (5, 32)


def test_weights_of_a_head_that_fits_are_kept(tmp_path):
    folder = save_encoder(tmp_path, "bert", "ForSequenceClassification")
    kept = transformers.AutoModelForSequenceClassification.from_pretrained(folder).classifier.weight
    assert torch.equal(loaded(folder, seed=7, num_labels=2).model.classifier.weight, kept)


@pytest.mark.parametrize("lost", ["bert.encoder.layer.1.output.dense.weight", "bert.embeddings.word_embeddings.weight"])
def test_weights_of_the_base_must_not_be_missing(tmp_path, lost):
    file = save_encoder(tmp_path, "bert", "Model") / "model.safetensors"
    weights = load_file(file)
    del weights[lost.removeprefix("bert.")]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelLoadError) as error:
        loaded(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} has no weights for 1 tensors (first: {lost!r}); is it a sequence-classification model?"
    )


def test_a_task_without_a_new_head_refuses_a_model_that_lacks_one(tmp_path):
    with pytest.raises(ModelLoadError, match="is it a masked-lm model"):
        loaded(save_encoder(tmp_path, "bert", "Model"), "masked-lm")


def test_a_head_is_trained_in_float32_whatever_the_base_is(tmp_path, model_of):
    case, watch = CASES["sequence-classification"], Watch()
    run = run_of(
        model_of("sequence-classification"), tmp_path, case, case.some(0, 8), watch=watch, dtype="bfloat16", max_steps=2
    )
    run.train()
    trained = {each.dtype for each in watch.outcome.model.parameters() if each.requires_grad}
    assert trained == {torch.float32}
    assert watch.outcome.model.get_base_model().bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
