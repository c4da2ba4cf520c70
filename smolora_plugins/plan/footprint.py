"""The memory that a run takes on its device, part by part, computed without its weights."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from smolora_core.batches import Collator
from smolora_core.model import head_modules
from smolora_core.run import Job, attach_adapter, micro_step
from smolora_core.training import Strategies
from smolora_plugins.plan.fake_model import empty_model, fill, quantise
from smolora_plugins.plan.fake_step import fake_step, without_data

# Freed memory is not all returned or reused: glibc keeps blocks of up to 32 MB in its heaps, and the backward pass runs in a
# thread with a heap of its own. The constant and the share of activations and loss were measured by
# tests/benchmarks/plan_memory.py on Linux; caching allocators of other devices were not measured.
_KEPT = {"cpu": (170 * 2**20, 0.25)}
_KEPT_ELSEWHERE = (0, 0.1)
# The first step loads and compiles kernels and imports the loop.
_FIRST_STEP = 60 * 2**20
# Bytes of optimizer state per trained parameter, by the beginning of the optimizer's name; by default AdamW's two moments.
_OPTIMIZERS = {"sgd": 4, "lion": 4, "rmsprop": 4, "adagrad": 4, "adafactor": 0, "galore": 0, "apollo": 0}
_MOMENTS = 8
_MOMENTS_IN_8_BITS = 2


@attrs.frozen(kw_only=True)
class Footprint:
    """The bytes that a run takes on its device.

    Attributes:
        program: the interpreter and its libraries, if the device is the CPU.
        weights: the base model's weights.
        adapter: the adapter and modules that are trained in full.
        optimizer: gradients and optimizer state.
        activations: the activations of the longest micro-batch.
        loss: the loss of the longest micro-batch.
        kept: memory that was freed but not returned.
        loading: memory that only loading the weights takes.
        operations: floating-point operations per row, to compare times by.
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
        """The peak: that of a step or of loading, whichever is higher."""
        return max(sum(self.parts().values()), self.program + self.weights + self.loading)

    def parts(self) -> dict[str, int]:
        """Give the parts of a training step by name."""
        names = ("program", "weights", "adapter", "optimizer", "activations", "loss", "kept")
        return {name: getattr(self, name) for name in names}


@attrs.frozen(kw_only=True)
class EstimateInputs:
    """Everything that a footprint depends on except strategies and the size of micro-batches.

    Attributes:
        job: the job to estimate.
        changes: the task's changes to the base model's config.
        dtype: the number format of the base model's weights.
        device: the device that the run computes on.
        collator: the collator of the micro-batches.
        rows: encoded rows, longest first.
        program: the resident memory of this process, in bytes.
    """

    job: Job
    changes: Mapping[str, Any]
    dtype: torch.dtype
    device: torch.device
    collator: Collator
    rows: Sequence[Mapping[str, Any]]
    program: int

    def batch(self, size: int) -> list[Mapping[str, Any]]:
        """Take the longest rows; where there are fewer, some of them again."""
        return [self.rows[index % len(self.rows)] for index in range(size)]


def footprint(inputs: EstimateInputs, strategies: Strategies, sizes: Sequence[int]) -> list[Footprint]:
    """Estimate the memory of a run for several sizes of micro-batches, from a fake step of the longest rows.

    Raises:
        SmoLoRAError: the model cannot be adapted, or its step cannot run without data.
    """
    job, collator, config = inputs.job, inputs.collator, inputs.job.config
    model, weights = _model(inputs, strategies)
    with micro_step(job, model, collator) as step:
        trained = [each for each in model.parameters() if each.requires_grad]
        adapter, parameters = sum(each.nbytes for each in trained), sum(each.numel() for each in trained)
        without_data(model, inputs.device)
        evaluations = []
        if config.data.eval is not None:
            evaluated = collator(inputs.batch(config.training.per_device_eval_batch_size))
            evaluations = [fake_step(model, step.objective, evaluated, trains=False)]
        found = []
        for size in sizes:
            cost = fake_step(model, step.objective, step.collate(inputs.batch(size)))
            # The loss is counted apart in training, but not in an evaluation.
            activations = max([cost.activations, *(each.activations + each.loss - cost.loss for each in evaluations)])
            found.append(
                Footprint(
                    program=inputs.program + _FIRST_STEP if inputs.device.type == "cpu" else 0,
                    weights=weights,
                    adapter=adapter,
                    optimizer=adapter + parameters * _state(str(config.training.extra.get("optim", "adamw"))),
                    activations=activations,
                    loss=cost.loss,
                    kept=_kept(inputs.device.type, activations + cost.loss),
                    loading=_loading(inputs, weights),
                    operations=cost.operations / size,
                )
            )
        return found


def _model(inputs: EstimateInputs, strategies: Strategies) -> tuple[Any, int]:
    """Build the model with its adapter, as a run would, and count the bytes of its frozen tensors."""
    job, task = inputs.job, inputs.job.choices.task.component
    config = copy.deepcopy(job.base_config)
    extra = strategies.load_kwargs()
    for name, value in inputs.changes.items():
        setattr(config, name, value)
    attention = {name: value for name, value in extra.items() if name == "attn_implementation"}
    base = empty_model(task.model_class, config, extra.get("dtype", inputs.dtype), **attention)
    heads = tuple(sorted(head_modules(base))) if task.new_head else ()
    saved = quantise(base, extra["quantization_config"], heads) if "quantization_config" in extra else 0
    model = attach_adapter(job, base, heads).model
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


def _loading(inputs: EstimateInputs, weights: int) -> int:
    """Count the bytes of files whose tensors are converted; tensors that keep their format stay in the mapped file."""
    stored = inputs.job.base_config.dtype
    if inputs.device.type != "cpu" or stored in (None, inputs.dtype):
        return 0
    return int(weights * stored.itemsize / inputs.dtype.itemsize)
