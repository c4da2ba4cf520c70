"""What a run takes of a device's memory, part by part, found out without its weights."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from smolora_core.batches.collator import Collator
from smolora_core.components import Task
from smolora_core.config import RunConfig
from smolora_core.dry_run.fake_model import empty_model, fill, quantise
from smolora_core.dry_run.fake_step import rehearse, without_numbers
from smolora_core.lora.attach import adaptable_modules, attach
from smolora_core.lora.options import targets_of
from smolora_core.model.load import heads_of, source_of
from smolora_core.plugins.selection import Choices
from smolora_core.training.learning import make_learning
from smolora_core.training.memory import Strategies

# What is freed is not all given back or used again: glibc keeps blocks of up to 32 MB in its heaps, of which the thread of the
# way back has its own, between others that live, and their ends. So much and such a share of activations and loss were kept in
# the runs of tests/benchmarks/plan_memory.py on Linux; caching allocators of other devices were not measured.
_KEPT = {"cpu": (170 * 2**20, 0.25)}
_KEPT_ELSEWHERE = (0, 0.1)
# Kernels are loaded and made, and the trainer is imported, when the first step is taken.
_FIRST_STEP = 60 * 2**20
# Bytes that optimizers keep for a trained parameter, told by the beginnings of their names; AdamW's two moments otherwise.
_OPTIMIZERS = {"sgd": 4, "lion": 4, "rmsprop": 4, "adagrad": 4, "adafactor": 0, "galore": 0, "apollo": 0}
_MOMENTS = 8
_MOMENTS_IN_8_BITS = 2


@attrs.frozen(kw_only=True)
class Footprint:
    """Bytes on the device that a run computes on.

    Attributes:
        program: the interpreter with its libraries, where the device is the processor.
        weights: of the base model.
        adapter: and modules that are trained whole.
        optimizer: gradients and the optimizer's state.
        activations: of the longest micro-batch.
        loss: what the loss takes besides.
        kept: what has been freed and is not given back.
        loading: what only loading the weights takes.
        operations: floating-point operations of a row on average, by which times may be compared.
    """

    program: int
    weights: int
    adapter: int
    optimizer: int
    activations: int
    loss: int
    kept: int
    loading: int
    operations: float

    @property
    def peak(self) -> int:
        """The most that is taken at a time."""
        return max(sum(self.parts().values()), self.program + self.weights + self.loading)

    def parts(self) -> dict[str, int]:
        """The parts of a training step."""
        names = ("program", "weights", "adapter", "optimizer", "activations", "loss", "kept")
        return {name: getattr(self, name) for name in names}


@attrs.frozen(kw_only=True)
class Stand:
    """All that a footprint hangs on but strategies and the size of micro-batches.

    Attributes:
        config: of the run.
        where: says where the user wrote a key.
        choices: its components.
        registry: where plugins' records are.
        base_config: the transformers config of the base model.
        changes: of it, from the task.
        dtype: of the base's weights.
        device: that is computed on.
        collator: makes micro-batches.
        rows: encoded, the longest first.
        evaluates: whether rows are held out.
        program: bytes that this process has taken.
    """

    config: RunConfig
    where: Any
    choices: Choices
    registry: Any
    base_config: Any
    changes: Mapping[str, Any]
    dtype: torch.dtype
    device: torch.device
    collator: Collator
    rows: Sequence[Mapping[str, Any]]
    evaluates: bool
    program: int

    @property
    def task(self) -> Task:
        task = self.choices.task.registered.component
        assert isinstance(task, Task)
        return task

    def batch(self, size: int) -> list[Mapping[str, Any]]:
        """The longest rows; where there are fewer, some of them again."""
        return [self.rows[index % len(self.rows)] for index in range(size)]


def footprint(stand: Stand, strategies: Strategies, sizes: Sequence[int]) -> list[Footprint]:
    """Rehearse a step of the longest micro-batches.

    Args:
        stand: what is trained, and where.
        strategies: that the run uses.
        sizes: rows in a micro-batch.

    Returns:
        One for each size.

    Raises:
        SmoLoRAError: the model cannot be adapted, or its step not be rehearsed.
    """
    training = stand.config.training
    model, weights = _model(stand, strategies)
    speed, objective = make_learning(model, stand.choices, stand.collator.task, stand.config)
    try:
        trained = [each for each in model.parameters() if each.requires_grad]
        adapter, parameters = sum(each.nbytes for each in trained), sum(each.numel() for each in trained)
        without_numbers(model, stand.device)
        collate = attrs.evolve(stand.collator, concatenate=speed.batching.collate)
        found = []
        evaluated = stand.batch(training.per_device_eval_batch_size)
        watched = [rehearse(model, objective, stand.collator(evaluated), trains=False)] if stand.evaluates else []
        for size in sizes:
            learned = rehearse(model, objective, collate(stand.batch(size)))
            # What the loss takes is told apart from the rest in training; what an evaluation takes is not.
            activations = max([learned.activations, *(each.activations + each.loss - learned.loss for each in watched)])
            found.append(
                Footprint(
                    program=stand.program + _FIRST_STEP if stand.device.type == "cpu" else 0,
                    weights=weights,
                    adapter=adapter,
                    optimizer=adapter + parameters * _state(str(training.extra.get("optim", "adamw"))),
                    activations=activations,
                    loss=learned.loss,
                    kept=_kept(stand.device.type, activations + learned.loss),
                    loading=_loading(stand, weights),
                    operations=learned.operations / size,
                )
            )
        return found
    finally:
        speed.undo()


def _model(stand: Stand, strategies: Strategies) -> tuple[Any, int]:
    """Build the model with its adapter, as a run would, and count the bytes of what is not trained."""
    config = copy.deepcopy(stand.base_config)
    extra = strategies.load_kwargs()
    for name, value in stand.changes.items():
        setattr(config, name, value)
    attention = {name: value for name, value in extra.items() if name == "attn_implementation"}
    base = empty_model(stand.task.model_class, config, extra.get("dtype", stand.dtype), **attention)
    heads = tuple(sorted(heads_of(base))) if stand.task.new_head else ()
    saved = quantise(base, extra["quantization_config"], heads) if "quantization_config" in extra else 0
    targets = targets_of(
        stand.config.lora,
        config.model_type,
        {name: shape for name, shape in adaptable_modules(base).items() if name not in heads},
        stand.registry,
        stand.where,
        tied=bool(getattr(config.get_text_config(), "tie_word_embeddings", False)),
    )
    path, seed = source_of(stand.config.model), stand.config.seed
    model = attach(base, stand.config.lora, targets, stand.task, path, seed, modules_to_save=heads).model
    fill(model)
    strategies.model_ready(model)
    frozen = [each for each in (*model.parameters(), *model.buffers()) if not each.requires_grad]
    return model, sum(each.nbytes for each in frozen) - saved


def _kept(device: str, passing: int) -> int:
    least, share = _KEPT.get(device, _KEPT_ELSEWHERE)
    return round(least + share * passing)


def _state(optimizer: str) -> int:
    if "8bit" in optimizer:
        return _MOMENTS_IN_8_BITS
    return next((size for name, size in _OPTIMIZERS.items() if optimizer.startswith(name)), _MOMENTS)


def _loading(stand: Stand, weights: int) -> int:
    """Bytes of files whose tensors are converted; a format that stays as it is stays in the file, which is mapped."""
    stored = stand.base_config.dtype
    if stand.device.type != "cpu" or stored in (None, stand.dtype):
        return 0
    return int(weights * stored.itemsize / stand.dtype.itemsize)
