"""What a run says at its end, compared with the run's own loss of a model whose outputs are constant."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from smolora_core import Loss, Task, hookimpl
from smolora_core.plugins import PluginManager, build
from smolora_core.training.objective import make_objective
from tests.support.runs import events
from tests.support.small_tasks import CASES, Case, run_of

SAID = re.compile(r"held-out (.*); always answering (.*) would get (.*)")


class Constant(nn.Module):
    """A model that answers every row or token with the same outputs."""

    def __init__(self, outputs: Tensor, predicts: str) -> None:
        super().__init__()
        self.outputs, self.predicts = outputs, predicts

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor | None = None, **more: Any) -> Any:
        tokens = input_ids if decoder_input_ids is None else decoder_input_ids
        shape = tokens.shape[:1] if self.predicts == "row" else tokens.shape
        return SimpleNamespace(logits=self.outputs.expand(*shape, -1))


class Spy(transformers.TrainerCallback):
    """A plugin that keeps what callbacks receive, and the config of the run."""

    @hookimpl
    def smolora_callbacks(self, run: Any) -> list[Any]:
        self.config = run.config
        return [self]

    def on_train_end(self, args: Any, state: Any, control: Any, **received: Any) -> None:
        self.received = received

    def batch(self, split: str) -> dict[str, Tensor]:
        """Collate all rows of a split, padded."""
        dataset, collate = self.received[f"{split}_dataloader"].dataset, self.received["eval_dataloader"].collate_fn
        return collate([dataset[row] for row in range(len(dataset))])


def said(folder: Path, kind: str = "note") -> list[str]:
    return [event["text"] for event in events(folder / "run", kind) if "always answering" in event["text"]]


def best_constant(batch: dict[str, Tensor], task: Task, width: int) -> Tensor:
    """Compute the frequencies of classes or tokens, a mean, or log-odds, weighted by row, with a loop over the targets."""
    labels, weights = batch["labels"], batch["weight"]
    if labels.is_floating_point():
        mean = (labels * weights[:, None]).sum(0) / weights.sum()
        return mean.logit() if set(labels.flatten().tolist()) <= {0.0, 1.0} else mean
    counts, seen = torch.zeros(width), 0
    for row, weight in zip(labels.reshape(len(labels), -1).tolist(), weights.tolist(), strict=True):
        for target in row[1:] if task.predicts == "next-token" else row:
            if target != -100:
                counts[target] += weight
                seen += 1
    if (counts > 0).all():
        return (counts / counts.sum()).log()
    kinds, missing = int((counts > 0).sum()), int((counts == 0).sum())
    new = kinds / (kinds + seen)
    return torch.where(counts > 0, (1 - new) * counts / counts.sum(), new / missing).log()


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_run_says_what_a_constant_would_get(name: str, model_of: Callable[[str], Path], tmp_path: Path) -> None:
    case, spy, registry = CASES[name], Spy(), PluginManager.create().registry
    run_of(
        model_of(name),
        tmp_path,
        case,
        case.some(0, 24),
        case.some(24, 40),
        watch=spy,
        data={"weight_field": "weight"},
        max_steps=2,
        eval_steps=1,
    ).train()
    task = registry.resolve(Task, spy.config.task).component
    chosen = registry.resolve(Loss, spy.config.loss.name)
    loss = build(chosen, chosen.component.options() if chosen.component.options else None)
    model_config, collator = spy.received["model"].config, spy.received["eval_dataloader"].collate_fn
    answer = best_constant(
        spy.batch("train"), task, model_config.num_labels if task.new_head else model_config.get_text_config().vocab_size
    )
    constant = Constant(answer, task.predicts)
    objective = make_objective(
        chosen, loss, constant, predicts=task.predicts, weight_field="weight", observe=collator.task.observe
    )
    with torch.no_grad():
        measured = objective(constant, spy.batch("eval"))
    metrics = collator.task.metrics(measured.observed, measured.rows)
    figures = [(measured.sum / measured.weight).item()]
    figures += [metrics[each] for each in ("token_accuracy", "accuracy", "entity_f1") if each in metrics]
    (sentence,) = said(tmp_path)
    _, _, theirs = SAID.fullmatch(sentence).groups()
    assert [float(figure) for figure in re.split(" and |, ", theirs)] == pytest.approx(figures, rel=1e-3)


def reviews(labels: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"text": f"the film was good, said {number}", "label": label} for number, label in enumerate(labels)]


def run(
    model: Path, folder: Path, labels: Sequence[Any], held_out: Sequence[Any], resume: str = "never", **options: Any
) -> None:
    case = Case(lambda folder: folder, lambda number: {}, {"label_field": "label"}, options.pop("task", "auto"))
    made = run_of(model, folder, case, reviews(labels), reviews(held_out), **{"max_steps": 2, **options})
    made.train(resume=resume)


def test_classes_are_named_and_the_models_figures_come_first(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    run(model_of("sequence-classification"), tmp_path, ["ham"] * 9 + ["spam"] * 3, ["ham", "ham", "ham", "spam"])
    (sentence,) = said(tmp_path)
    last = events(tmp_path / "run", "eval")[-1]
    ours = f"held-out loss {last['loss']:.4g} and accuracy {last['accuracy']:.4g}"
    assert sentence == f"{ours}; always answering 'ham' would get 0.5623 and 0.75"


def test_a_mean_is_shown(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    run(model_of("sequence-classification"), tmp_path, [1.0, 2.0, 3.0, 6.5], [3.125, 5.125], task="regression")
    assert SAID.fullmatch(said(tmp_path)[0])[2] == "the mean of the training labels (3.125)"
    assert SAID.fullmatch(said(tmp_path)[0])[3] == "2"


def test_a_model_that_is_not_better_is_a_warning(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    run(model_of("sequence-classification"), tmp_path, [100.0, 101.0], [100.0, 101.0], task="regression")
    assert said(tmp_path, "warning") == [
        "the model is not better than always answering the mean of the training labels (100.5); train longer, raise "
        "training.learning_rate, or look at the rows with smolora data preview"
    ]


def test_a_model_that_is_better_gets_no_warning(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    run(model_of("sequence-classification"), tmp_path, [0.0, 5.0] * 4, [0.0, 1.0], task="regression", max_steps=1)
    assert said(tmp_path) and not said(tmp_path, "warning")


def test_overfitting_is_said_once_across_a_resume(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    model, labels, held_out = model_of("sequence-classification"), [3.0] * 8, [-5.0, -6.0]
    for steps, resume in ((4, "never"), (8, "auto")):
        run(model, tmp_path, labels, held_out, resume, task="regression", max_steps=steps, eval_steps=1)
        warned = [event["text"] for event in events(tmp_path / "run", "warning") if "overfitting" in event["text"]]
        assert len(warned) == 1
    losses = [event["loss"] for event in events(tmp_path / "run", "eval")]
    assert len(losses) == 9 and losses == sorted(losses)


@pytest.mark.parametrize(("kept", "step"), [("best", 1), ("last", 4)])
def test_the_adapter_that_is_kept_is_compared(model_of: Callable[[str], Path], tmp_path: Path, kept: str, step: int) -> None:
    options = {"task": "regression", "max_steps": 4, "eval_steps": 1, "final_adapter": kept}
    run(model_of("sequence-classification"), tmp_path, [3.0] * 8, [-5.0, -6.0], **options)
    losses = {event["step"]: event["loss"] for event in events(tmp_path / "run", "eval")}
    assert losses[1] < losses[4]
    assert SAID.fullmatch(said(tmp_path)[0])[1] == f"loss {losses[step]:.4g}"


def test_no_entity_is_a_warning(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    def tagged(number: int) -> dict[str, Any]:
        return {"tokens": ["we", "liked", "it", "so"], "tags": ["O", "O", "O", "O" if number % 8 else "B-film"]}

    case = Case(lambda folder: folder, tagged)
    rows = case.some(0, 32), case.some(32, 48)
    run_of(model_of("token-classification"), tmp_path, case, *rows, max_steps=20, eval_steps=20).train()
    assert [event["text"] for event in events(tmp_path / "run", "warning") if "entity" in event["text"]] == [
        "entity F1 is 0: the model found none of the held-out entities; train longer or raise training.learning_rate, and "
        "check that the held-out rows have entities"
    ]


def test_a_loss_that_runs_the_model_itself_has_no_constant(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    def whole(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        labels = batch.pop("labels")
        losses = F.cross_entropy(model(**batch).logits, labels, reduction="none")
        return losses.sum(), losses.new_tensor(len(losses))

    loss = Loss(name="whole", summary="", implementation=whole, kind="model")
    run(model_of("sequence-classification"), tmp_path, ["ham", "spam"], ["ham", "spam"], loss=loss)
    assert said(tmp_path) == said(tmp_path, "warning") == []


def test_nothing_is_compared_without_held_out_rows(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    run(model_of("sequence-classification"), tmp_path, ["ham", "spam"], [])
    assert said(tmp_path) == []


def test_nothing_is_compared_with_the_plugin_disabled(
    model_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOLORA_DISABLE_PLUGINS", "baseline")
    run(model_of("sequence-classification"), tmp_path, ["ham", "spam"], ["ham", "spam"])
    assert said(tmp_path) == []


def test_streamed_rows_are_not_counted(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    case = CASES["causal-lm"]
    rows = case.some(0, 8), case.some(8, 16)
    run_of(model_of("causal-lm"), tmp_path, case, *rows, data={"streaming": True, "num_proc": 1}, max_steps=2).train()
    assert said(tmp_path) == []


def test_a_loss_that_fails_on_a_constant_does_not_end_the_run(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    def picky(logits: Tensor, targets: Tensor) -> Tensor:
        if 0 in logits.stride():
            raise ValueError("constant logits")
        return F.cross_entropy(logits, targets, reduction="none")

    run(model_of("sequence-classification"), tmp_path, ["ham", "spam"], ["ham", "spam"], loss=picky)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    warnings = [event["text"] for event in events(tmp_path / "run", "warning")]
    assert "the model could not be compared with a constant answer (ValueError: constant logits)" in warnings
