"""Which task is meant where nobody says, and why; and which losses fit it."""

import json
from functools import partial

import pytest

from smolora_core import PluginError, Task
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import choose_components
from smolora_core.run.check import peek_labels


@pytest.fixture
def choose(tmp_path):
    def choose(architecture, row, task="auto", loss=None, **data):
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(map(json.dumps, row if isinstance(row, list) else [row])))
        given = {"model": "tiny", "task": task, "data": {"train": str(file), **data}, **({"loss": loss} if loss else {})}
        resolved = resolve(Document(given, {"": "run.yaml"}))
        look = partial(peek_labels, resolved.config.data)
        return choose_components(resolved, PluginManager.create().registry, [architecture], look)

    return choose


TEXT = {"text": "fine"}
AUTO = [
    ("LlamaForCausalLM", TEXT, {}, "causal-lm", "config.json lists LlamaForCausalLM"),
    ("LlamaForCausalLM", {**TEXT, "label": "a"}, {}, "causal-lm", "config.json lists LlamaForCausalLM"),
    (
        "LlamaForCausalLM",
        {**TEXT, "label": "a"},
        {"label_field": "label"},
        "sequence-classification",
        "column 'label' contains labels",
    ),
    ("T5ForConditionalGeneration", TEXT, {}, "seq2seq-lm", "config.json lists T5ForConditionalGeneration"),
    ("BertForMaskedLM", TEXT, {}, "masked-lm", "config.json lists BertForMaskedLM"),
    ("BertForMaskedLM", {**TEXT, "label": "a"}, {}, "masked-lm", "config.json lists BertForMaskedLM"),
    ("BertForMaskedLM", {**TEXT, "v1": "a"}, {"label_field": "v1"}, "sequence-classification", "column 'v1' contains labels"),
    ("BertModel", {**TEXT, "label": 3}, {}, "sequence-classification", "column 'label' contains labels"),
    ("BertModel", {**TEXT, "label": 3.5}, {}, "regression", "column 'label' contains numbers"),
    (
        "BertModel",
        [{**TEXT, "V": "3.0"}, {**TEXT, "V": "2.8"}],
        {"label_field": "V"},
        "regression",
        "column 'V' contains numbers",
    ),
    ("BertModel", {**TEXT, "V": 3, "A": 2}, {"label_field": ["V", "A"]}, "regression", "data.label_field names 2 columns"),
    ("BertModel", {**TEXT, "label": ["a"]}, {}, "sequence-classification", "column 'label' contains lists"),
    ("BertModel", {"tokens": ["we"], "tags": ["O"]}, {}, "token-classification", "columns tokens and tags"),
    (
        "BertModel",
        {**TEXT, "tokens": ["we"], "tags": ["O"]},
        {"label_field": "tags"},
        "token-classification",
        "columns tokens and tags",
    ),
    ("BertForMaskedLM", {"tokens": ["we"], "tags": ["O"]}, {}, "token-classification", "columns tokens and tags"),
    ("BertForTokenClassification", TEXT, {}, "token-classification", "config.json lists BertForTokenClassification"),
    ("BertForSequenceClassification", {**TEXT, "label": 0.5}, {}, "regression", "column 'label' contains numbers"),
]


@pytest.mark.parametrize(("architecture", "row", "data", "task", "reason"), AUTO)
def test_the_task_is_told_from_the_model_and_the_rows(choose, architecture, row, data, task, reason):
    chosen = choose(architecture, row, **data).task
    assert (chosen.name, chosen.reason) == (task, reason)
    assert str(chosen) == f"{task} (smolora 0.1.0)  {reason}"


def test_a_task_that_the_user_names_needs_no_reason(choose):
    assert str(choose("BertModel", TEXT, task="masked-lm").task) == "masked-lm (smolora 0.1.0)"


def test_a_model_that_says_nothing_with_rows_that_do_not(choose):
    with pytest.raises(PluginError) as error:
        choose("BertModel", TEXT)
    assert str(error.value).startswith("run.yaml the task cannot be inferred: the model's config.json lists BertModel; set")


@pytest.mark.parametrize(
    ("row", "data", "loss"),
    [
        ({**TEXT, "label": "a"}, {"label_field": "label"}, "cross-entropy"),
        ({**TEXT, "label": ["a", "b"]}, {"label_field": "label"}, "bce"),
        ({**TEXT, "x": 0, "y": 1}, {"label_field": ["x", "y"]}, "bce"),
        ({**TEXT, "tokens": ["quite", "a", "film"], "label": ["a", "b"]}, {"label_field": "label"}, "bce"),
    ],
)
def test_the_loss_hangs_on_how_many_labels_a_row_may_have(choose, row, data, loss):
    assert choose("BertModel", row, task="sequence-classification", **data).loss.name == loss


@pytest.mark.parametrize(
    ("task", "loss", "kinds", "fits"),
    [
        ("causal-lm", "mse", "prediction, but causal-lm (smolora 0.1.0) needs kind token", "cross-entropy, label-smoothing"),
        ("regression", "cross-entropy", "token, but regression (smolora 0.1.0) needs kind prediction", "mse, weighted-mse"),
    ],
)
def test_a_loss_of_another_kind_is_refused_with_those_that_fit(choose, task, loss, kinds, fits):
    with pytest.raises(PluginError) as error:
        choose("BertModel", {**TEXT, "label": 1.5}, task=task, loss=loss)
    assert str(error.value).startswith(f"run.yaml loss {loss} (smolora 0.1.0) is of kind {kinds}; compatible losses: {fits}")


def test_a_task_learns_from_rows_that_there_are():
    with pytest.raises(PluginError) as error:
        Task(name="ranking", summary="", implementation="acme:ranking", model_class="Auto", loss="mse", formats=("label",))
    assert str(error.value) == "Task 'ranking': formats contains the unknown format 'label'; did you mean 'labelled'?"
