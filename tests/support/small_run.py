"""A few rows, a small adapted model and one optimizer step: what the tests of training compare."""

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F
import transformers

from smolora_core import Loss
from smolora_core.batches.padding import IGNORED, pad
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.plugins import Origin, Registered, Tier
from smolora_core.training.arguments import make_arguments
from smolora_core.training.cadence import Cadence
from smolora_core.training.loop import TrainingLoop
from smolora_core.training.objective import make_objective

ACME = Origin("acme", Tier.THIRD_PARTY, "acme-losses", "1.2", "acme.losses")
VOCABULARY = 300


def rows(lengths: Sequence[tuple[int, int]] = ((3, 9), (0, 5), (7, 2), (1, 12), (5, 1), (2, 6), (10, 8), (4, 3))) -> list[dict]:
    """Make rows of random tokens, each with a prompt of so many tokens and a completion of so many, and a weight."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number, (prompt, completion) in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (prompt + completion,), generator=generator).tolist()
        labels = [IGNORED] * prompt + ids[prompt:]
        made.append({"input_ids": ids, "labels": [IGNORED, *labels[1:]], "weight": 0.5 + number / 4})
    return made


def batch(of: Sequence[dict]) -> dict[str, torch.Tensor]:
    return pad(of, pad_token_id=1)


def adapted(base: Any, **lora: Any) -> Any:
    """Attach an adapter that is not zero, so that every one of its tensors has a gradient, to a base that drops nothing out."""
    conv1d = base.config.model_type == "gpt2"
    targets = ["c_attn", "c_proj"] if conv1d else ["q_proj", "v_proj", "down_proj"]
    options = {"r": 4, "target_modules": targets, "task_type": "CAUSAL_LM", "fan_in_fan_out": conv1d, **lora}
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base.requires_grad_(False), peft.LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.eval()


def load(folder: Path | str, dtype: str = "float32", **lora: Any) -> Any:
    return adapted(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), **lora)


def registered(loss: Callable[..., Any], **record: Any) -> Registered:
    return Registered(Loss(name="made-here", summary="", implementation=loss, **record), ACME)


def objective(loss: Callable[..., Any], model: Any, chunk_bytes: int = 2**20, **record: Any) -> Any:
    return make_objective(registered(loss, **record), loss, model, chunk_bytes)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


def focal(logits: torch.Tensor, targets: torch.Tensor, *, weight: torch.Tensor) -> torch.Tensor:
    """A token loss that nobody here has written, with a column."""
    losses = cross_entropy(logits, targets)
    return weight * (1 - torch.exp(-losses)) ** 2 * losses


def with_penalty(model: Any, of: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss that computes everything itself, and weighs tokens by their rows' weights."""
    logits = model(input_ids=of["input_ids"], attention_mask=of["attention_mask"], use_cache=False).logits[:, :-1]
    targets = of["labels"][:, 1:]
    kept = targets != IGNORED
    weight = of["weight"][:, None].expand_as(kept)[kept]
    losses = cross_entropy(logits[kept], targets[kept]) + 0.1 * logits[kept].logsumexp(-1) ** 2
    return (weight * losses).sum(), weight.sum()


LOSSES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "cross-entropy": (cross_entropy, {}),
    "custom": (focal, {"columns": ("weight",)}),
    "model": (with_penalty, {"kind": "model", "columns": ("weight",)}),
}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def full_logits(
    model: Any, of: Sequence[dict], loss: Callable[..., torch.Tensor] = cross_entropy, **columns: Any
) -> tuple[float, int, dict[str, torch.Tensor]]:
    """Compute what an objective must compute: row by row, without padding, from all logits, in double precision."""
    model = copy.deepcopy(model).double()
    model.zero_grad()
    total, weight = torch.zeros((), dtype=torch.float64), 0
    for row in of:
        targets = torch.tensor(row["labels"][1:])
        kept = targets != IGNORED
        logits = model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1]
        values = {name: torch.full((int(kept.sum()),), row[name], dtype=torch.float64) for name in columns}
        total = total + loss(logits[kept], targets[kept], **values).sum()
        weight += int(kept.sum())
    total.backward()
    return total.item(), weight, gradients(model)


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest difference of a tensor, relative to the tensor's norm."""
    assert found.keys() == expected.keys()
    assert all(tensor.norm() > 0 for tensor in expected.values())
    return max(((found[name].double() - each.double()).norm() / each.double().norm()).item() for name, each in expected.items())


class Watch(transformers.TrainerCallback):
    """Keeps the gradients that an optimizer step is about to take, and the losses that are logged."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.losses: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        self.gradients.append(gradients(model))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []


def trainer(
    model: Any,
    measure: Any,
    folder: Path,
    train: Iterable[dict] = (),
    held_out: Sequence[dict] = (),
    save: Callable[..., Any] = lambda step, metrics, state: None,
    watch: Watch | None = None,
    extra: dict[str, Any] | None = None,
    save_steps: int = 500,
    warn: Callable[[str], Any] = lambda text: None,
    cadence: Cadence | None = None,
    tokenizer: Any = None,
    **training: Any,
) -> TrainingLoop:
    """Make the trainer that a run of one optimizer step after another, each logged, would make."""
    defaults = {"logging_steps": 1, "eval_steps": 500, "learning_rate": 1e-2}
    section = {**defaults, **training, "extra": {"max_grad_norm": 0.0, **(extra or {})}}
    values = {
        "model": {"path": "here"},
        "data": {"train": "rows"},
        "training": section,
        "checkpoints": {"save_steps": save_steps},
    }
    config = resolve(Document(values, {})).config
    return TrainingLoop(
        objective=measure,
        save=save,
        warn=warn,
        model=model,
        args=make_arguments(config, folder, torch.device("cpu"), evaluates=bool(held_out)),
        train_dataset=train if isinstance(train, torch.utils.data.IterableDataset) else list(train),
        eval_dataset=list(held_out) or None,
        data_collator=batch,
        callbacks=[watch] if watch else [],
        cadence=cadence or Cadence(),
        processing_class=tokenizer,
    )


def one_step(
    folder: Path, base: Path | str, loss: str, micro_batch: int, accumulation: int
) -> tuple[dict[str, torch.Tensor], float]:
    """Take one optimizer step over all rows; return its gradient and the loss that is logged."""
    function, record = LOSSES[loss]
    model, watch = load(base), Watch()
    measure = objective(function, model, chunk_bytes=7 * 4 * VOCABULARY, **record)
    split = {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": accumulation}
    trainer(model, measure, folder, rows(), watch=watch, max_steps=1, **split).train()
    return watch.gradients[0], watch.losses[0]
