"""A run of two epochs that is saved after every step, resumed from any of them, and compared to the last bit."""

import copy
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import peft
import torch
import transformers

from smolora_core.training.loop import TrainingLoop
from tests.support.small_run import cross_entropy, objective, rows, trainer

# 13 rows make 7 micro-batches, the last of one row; these make 3 steps, the last of one micro-batch.
LENGTHS = [(1 + number % 4, 2 + 3 * number % 11) for number in range(13)]
SPLIT = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
STEPS = 6
_TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}


class Stream(torch.utils.data.IterableDataset[Any]):
    """Rows in an order that changes with the pass, as a stream of prepared rows is."""

    def __init__(self) -> None:
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        return iter(random.Random(self._epoch).sample(rows(LENGTHS), len(LENGTHS)))


def dropping_out(base: Path) -> Any:
    """Load a base with an adapter that drops out."""
    config = peft.LoraConfig(r=4, lora_dropout=0.2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(3)
    return peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base, dtype="float32"), config)


def saved_under(folder: Path, model: Any) -> Callable[..., None]:
    """Save as a run does: the adapter as PEFT writes it, and the trainer's state."""

    def save(step: int, metrics: dict[str, float], state: Callable[[Path], None]) -> Path:
        place = folder / f"checkpoint-{step}"
        model.save_pretrained(place, save_embedding_layers=False)
        state(place)
        return place

    return save


def copied(whole: Path, folder: Path, step: int) -> Path:
    """Copy the checkpoints of a run up to a step to another folder; return the step's."""
    for place in whole.glob("checkpoint-*"):
        if int(place.name.removeprefix("checkpoint-")) <= step:
            shutil.copytree(place, folder / place.name, dirs_exist_ok=True)
    return folder / f"checkpoint-{step}"


def disturb() -> None:
    """Leave all random numbers in a state that no run leaves them in."""
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    torch.rand(7)


def make(base: Path, folder: Path, **changes: Any) -> TrainingLoop:
    """Make the trainer of a run, as a fresh process would."""
    model = changes.pop("model", None) or dropping_out(base)
    extra = {"max_grad_norm": 1.0, **changes.pop("extra", {})}
    options: dict[str, Any] = {
        "train": rows(LENGTHS),
        "held_out": rows()[:5],
        "save": saved_under(folder, model),
        "measure": objective(cross_entropy, model),
        "save_steps": 1,
        "logging_steps": 2,
        "eval_steps": 3,
        "num_train_epochs": 2,
        "per_device_eval_batch_size": 2,
        **SPLIT,
        **changes,
    }
    return trainer(model, options.pop("measure"), folder, extra=extra, **options)


@attrs.frozen
class End:
    """Everything that a run has left in memory, times apart."""

    parameters: dict[str, bytes]
    optimizer: dict[str, Any]
    rng: bytes
    scheduler: dict[str, Any]
    log: list[dict[str, float]]
    tokens: int
    step: int
    epoch: float
    metrics: dict[str, float]
    train_loss: float


def end_of(made: TrainingLoop, result: Any) -> End:
    model: Any = made.model
    names = [name for name, each in model.named_parameters() if each.requires_grad]
    state = copy.deepcopy(made.optimization.optimizer.state_dict())
    state["state"] = {
        names[index]: {slot: _bits(value) for slot, value in slots.items()} for index, slots in state["state"].items()
    }
    return End(
        parameters={name: _bits(each) for name, each in model.named_parameters() if each.requires_grad},
        optimizer=state,
        rng=_bits(torch.get_rng_state()),
        scheduler=made.optimization.schedule.state_dict(),
        log=[{name: value for name, value in entry.items() if name not in _TIMES} for entry in made.state.log_history],
        tokens=made.position.tokens,
        step=made.state.global_step,
        epoch=made.state.epoch,
        metrics=made.evaluate_now(),
        train_loss=result.training_loss,
    )


def _bits(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().cpu().contiguous().numpy().tobytes()


def files(checkpoint: Path) -> dict[str, bytes]:
    """The files that are the same, byte by byte, however a run came to its step."""
    names = ("adapter_model.safetensors", "optimizer.safetensors")
    return {name: (checkpoint / name).read_bytes() for name in names}
