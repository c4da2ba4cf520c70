"""Every task on a tiny model: its rows, and a run of it through the library's face."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers

from smolora_core import LoRAConfig, SmoLoRA, TrainingConfig, hookimpl
from tests.support.models import save_encoder, save_llama, save_t5

FILMS = ("good", "bad", "long and good", "not bad", "short", "not good at all", "a mat", "why")


@attrs.frozen
class Case:
    """A task, the model it is learned by, and rows."""

    save: Callable[[Path], Path]
    rows: Callable[[int], dict[str, Any]]
    data: dict[str, Any] = attrs.field(factory=dict)
    task: str = "auto"

    def some(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Make rows, each with a weight."""
        return [{**self.rows(number), "weight": 0.5 + number % 4} for number in range(start, stop)]


def _text(number: int) -> str:
    return f"the film was {FILMS[number % 8]}, said {number}"


def _labelled(number: int) -> dict[str, Any]:
    return {"text": _text(number), "label": ("ham", "spam", "eggs")[number % 3]}


def _several(number: int) -> dict[str, Any]:
    return {"text": _text(number), "label": [name for at, name in enumerate(("x", "y", "z")) if number >> at & 1]}


def _scored(number: int) -> dict[str, Any]:
    return {"text": _text(number), "V": f"{number % 5}.5", "A": number % 3, "D": 1 / (1 + number)}


def _tagged(number: int) -> dict[str, Any]:
    words = FILMS[number % 8].split()
    return {"tokens": ["we", "liked", *words, str(number)], "tags": ["O", "O", "B-film", *["I-film"] * (len(words) - 1), "B-n"]}


CASES = {
    "causal-lm": Case(save_llama, lambda number: {"prompt": _text(number), "completion": FILMS[number % 7]}),
    "seq2seq-lm": Case(save_t5, lambda number: {"prompt": _text(number), "completion": FILMS[number % 7]}),
    "masked-lm": Case(save_encoder, lambda number: {"text": f"{_text(number)} {_text(number + 1)}"}),
    "whole-word-masked-lm": Case(save_encoder, lambda number: {"text": _text(number)}, task="whole-word-masked-lm"),
    "sequence-classification": Case(save_encoder, _labelled, {"label_field": "label"}),
    "several labels": Case(lambda folder: save_encoder(folder, "bert", "Model"), _several, {"label_field": "label"}),
    "classes of a decoder": Case(save_llama, _labelled, {"label_field": "label"}),
    "regression": Case(lambda folder: save_encoder(folder, "distilbert"), _scored, {"label_field": ["V", "A", "D"]}),
    "token-classification": Case(save_encoder, _tagged),
}


class Watch(transformers.TrainerCallback):
    """A plugin that makes every tensor of the adapter matter at once, and keeps each step's gradients and the outcome."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.outcome: Any = None

    @hookimpl
    def smolora_adapter_attached(self, model: Any) -> None:
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)

    @hookimpl
    def smolora_callbacks(self, run: Any) -> list[Any]:
        return [self]

    @hookimpl
    def smolora_run_finished(self, outcome: Any) -> None:
        self.outcome = outcome

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.gradients.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})


def write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def run_of(
    model: Path,
    folder: Path,
    case: Case,
    rows: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]] = (),
    watch: Watch | None = None,
    data: dict[str, Any] | None = None,
    loss: Any = None,
    listener: Any = None,
    seed: int = 42,
    dtype: str = "float32",
    **training: Any,
) -> SmoLoRA:
    """Put a run without dropout together."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {**case.data, **({"eval": str(write(folder / "eval.jsonl", held_out))} if held_out else {}), **(data or {})}
    section = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1}
    return SmoLoRA(
        str(model),
        str(write(folder / "train.jsonl", rows)),
        output_dir=str(folder / "run"),
        lora=LoRAConfig(r=4, dropout=0.0),
        training=TrainingConfig(max_seq_length=64, **{**section, **training}, extra={"max_grad_norm": 0.0}),
        model={"dtype": dtype, "device": "cpu"},
        task=case.task,
        seed=seed,
        data=given,
        loss=loss,
        plugins=[watch] if watch else [],
        listener=listener,
    )
