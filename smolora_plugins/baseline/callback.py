"""Say at the end of training whether the model learned more than a constant answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from smolora_core import Loss, RunContext, Task
from smolora_core.plugins import build
from smolora_plugins.baseline.constant import Targets, average, log_frequencies, measure, read_targets
from smolora_plugins.baseline.overfitting import overfitting_warning

# The other metrics repeat the loss, or mean nothing for a constant.
_COMPARED = {"loss": "loss", "token_accuracy": "token accuracy", "accuracy": "accuracy", "entity_f1": "entity F1"}


class Baseline(TrainerCallback):
    """Warns of overfitting, and compares the adapter that is kept with the best constant answer."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._ended = False

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Warn if this evaluation shows overfitting."""
        if text := overfitting_warning(state.log_history):
            self._run.warn(text)
        if self._ended:
            self._finish(args, state, **more)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Compare now if the last step was evaluated, else after the evaluation that follows."""
        self._ended = True
        if any(entry["step"] == state.global_step and "eval_loss" in entry for entry in state.log_history):
            self._finish(args, state, **more)

    def _finish(self, args: Any, state: Any, model: Any, train_dataloader: Any, eval_dataloader: Any, **more: Any) -> None:
        self._ended = False
        best = state.best_global_step if args.load_best_model_at_end else None
        evaluated = [entry for entry in state.log_history if "eval_loss" in entry]
        entry = next((each for each in reversed(evaluated) if each["step"] == best), evaluated[-1])
        found = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        if found.get("entity_f1") == 0:
            hint = "train longer or raise training.learning_rate, and check that the held-out rows have entities"
            self._run.warn(f"entity F1 is 0: the model found none of the held-out entities; {hint}")
        if any(each is None or isinstance(each.dataset, IterableDataset) for each in (train_dataloader, eval_dataloader)):
            return
        try:
            self._compare(found, model.config, train_dataloader.dataset, eval_dataloader)
        except Exception as error:
            # A plugin's loss or task may reject constant outputs, which must not cost the trained adapter.
            self._run.warn(f"the model could not be compared with a constant answer ({type(error).__name__}: {error})")

    @torch.no_grad()
    def _compare(self, found: Mapping[str, float], model_config: Any, train: Any, held_out: Any) -> None:
        config, registry = self._run.config, self._run.plugins.registry
        assert config.loss is not None, "the config of a run names its loss"
        task, chosen = registry.resolve(Task, config.task).component, registry.resolve(Loss, config.loss.name)
        record = chosen.component
        if record.kind == "model":
            return
        loss = build(chosen, record.options(**config.loss.options) if record.options else None)
        targets, expected = (
            read_targets(rows, held_out.collate_fn, task.predicts, record, config.data.weight_field)
            for rows in (train, held_out.dataset)
        )
        answer, what = _best_answer(targets, expected, loss, task, model_config)
        self._report(found, measure(answer, expected, loss, held_out.collate_fn.task), f"always answering {what}")

    def _report(self, found: Mapping[str, float], constant: Mapping[str, float], what: str) -> None:
        names = [name for name in _COMPARED if name in found and name in constant]
        ours = _listed([f"{_COMPARED[name]} {found[name]:.4g}" for name in names])
        theirs = _listed([f"{constant[name]:.4g}" for name in names])
        self._run.emit("note", text=f"held-out {ours}; {what} would get {theirs}")
        if not found["loss"] < constant["loss"] and not any(found[name] > constant[name] for name in names[1:]):
            hint = "train longer, raise training.learning_rate, or look at the rows with smolora data preview"
            self._run.warn(f"the model is not better than {what}; {hint}")


def _best_answer(targets: Targets, expected: Targets, loss: Any, task: Task, model_config: Any) -> tuple[Tensor, str]:
    """Return the best constant outputs for the training targets, and their name in a sentence."""
    if targets.values.is_floating_point():
        mean, answer = average(targets, loss)
        return answer, "the mean of the training labels" + (f" ({mean.item():.4g})" if mean.numel() == 1 else "")
    if task.new_head:
        answer = log_frequencies(targets, model_config.num_labels)
        return answer, repr(model_config.id2label[int(answer.argmax())])
    most = max(int(each.values.max()) for each in (targets, expected))
    return log_frequencies(targets, max(model_config.get_text_config().vocab_size, most + 1)), "with the most frequent tokens"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
