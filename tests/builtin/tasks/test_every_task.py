"""Every task from rows to an adapter: one step for every split, one evaluation for every batch, and the same model back."""

import peft
import pytest
import torch
import transformers

from smolora_core.components import Task
from smolora_core.plugins import PluginManager
from tests.support.small_run import difference
from tests.support.small_tasks import CASES, Watch, run_of

EQUAL = 1e-5
# tests/training/test_split_invariance.py takes every pair of task and loss, at the objective; whole runs repeat it for these.
WHOLE_RUNS = ("causal-lm", "regression")


@pytest.mark.parametrize(
    "weights", [pytest.param({}, id="alike"), pytest.param({"weight_field": "weight"}, id="weighted", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", WHOLE_RUNS)
def test_micro_batches_do_not_change_the_step(tmp_path, model_of, name, weights):
    case, steps = CASES[name], []
    for micro_batch, accumulation in [(8, 1), (4, 2), (1, 8)]:
        watch = Watch()
        split = {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
        run = run_of(model_of(name), tmp_path / str(micro_batch), case, case.some(0, 8), watch=watch, data=weights, **split)
        steps.append((run.train()["train_loss"], watch.gradients[0]))
    for loss, gradient in steps[1:]:
        assert loss == pytest.approx(steps[0][0], rel=EQUAL)
        assert difference(gradient, steps[0][1]) < EQUAL


@pytest.mark.parametrize("name", CASES)
def test_the_size_of_a_batch_does_not_change_the_evaluation(tmp_path, model_of, name):
    case, found = CASES[name], []
    for size in (1, 3):
        run = run_of(
            model_of(name),
            tmp_path / str(size),
            case,
            case.some(0, 8),
            case.some(3, 10),
            max_steps=1,
            per_device_eval_batch_size=size,
        )
        metrics = run.train()
        found.append([value for key, value in metrics.items() if key.endswith("_before")])
    assert len(found[0]) > 1
    assert found[1][0] == pytest.approx(found[0][0], rel=EQUAL)
    # A model that has learned nothing predicts about the same for every row, and correlates by the last digits of it.
    assert found[1] == pytest.approx(found[0], rel=1e-2)


@pytest.mark.parametrize("name", [*WHOLE_RUNS, "sequence-classification"])
def test_weights_count_rows(tmp_path, model_of, name):
    """A row of weight 3 is worth three rows."""
    case, gradients = CASES[name], []
    rows = [{**row, "weight": 1 + 2 * (number == 1)} for number, row in enumerate(case.some(0, 3))]
    for number, (given, data) in enumerate([(rows, {"weight_field": "weight"}), ([*rows, rows[1], rows[1]], {})]):
        watch = Watch()
        run_of(model_of(name), tmp_path / str(number), case, given, watch=watch, data=data, max_steps=1).train()
        gradients.append(watch.gradients[0])
    assert difference(*gradients) < EQUAL


HEADS = [name for name in CASES if "label_field" in CASES[name].data or name == "token-classification"]


@pytest.mark.parametrize("name", CASES)
def test_it_comes_back_with_plain_peft_and_is_merged_and_knows_its_labels(tmp_path, monkeypatch, model_of, name):
    case, watch = CASES[name], Watch()
    run = run_of(model_of(name), tmp_path, case, case.some(0, 8), watch=watch, max_steps=2)
    run.train()
    trained, adapter = watch.outcome.model.eval().requires_grad_(False), watch.outcome.adapter
    model_class = type(trained.get_base_model())
    monkeypatch.chdir("/")
    # Beside a head of its own stands what says how many labels it has.
    config = transformers.AutoConfig.from_pretrained(adapter if name in HEADS else model_of(name))
    base = model_class.from_pretrained(model_of(name), config=config, dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(base, adapter).eval()
    merged = model_class.from_pretrained(run.merge(tmp_path / "merged"), dtype=torch.float32).eval()
    batch = {"input_ids": torch.arange(5, 17).reshape(2, 6)}
    if trained.config.is_encoder_decoder:
        batch["decoder_input_ids"] = batch["input_ids"].flip(1)
    expected = trained(**batch).logits
    assert torch.equal(loaded(**batch).logits, expected)
    torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-5, atol=1e-5)
    for each in (loaded, merged):
        assert name not in HEADS or list(each.config.id2label.values()) == LABELS[name]


LABELS = {
    "sequence-classification": ["eggs", "ham", "spam"],
    "classes of a decoder": ["eggs", "ham", "spam"],
    "several labels": ["x", "y", "z"],
    "regression": ["V", "A", "D"],
    "token-classification": ["B-film", "B-n", "I-film", "O"],
}


@pytest.mark.parametrize("name", HEADS)
def test_a_new_head_begins_the_same_for_the_same_seed(tmp_path, model_of, name):
    case, losses = CASES[name], []
    for number, seed in enumerate([1, 1, 2]):
        torch.manual_seed(number)
        run = run_of(model_of(name), tmp_path / str(number), case, case.some(0, 8), case.some(0, 8), seed=seed, max_steps=1)
        losses.append(run.train()["eval_loss_before"])
    assert losses[0] == losses[1] != losses[2]


def test_every_task_is_here():
    tasks = {found.component.name for found in PluginManager.create().registry.of_kind(Task)}
    assert tasks == set(CASES) - {"several labels", "classes of a decoder"}
