"""One optimizer step: sums over micro-batches, one division by the weight of the whole step, clipping, and the update."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from smolora_core.batches.padding import ROW_SEEDS
from smolora_core.errors import TrainingError
from smolora_core.lora.dropout import RowSeeds, seeded
from smolora_core.training.objective import Measured, Objective
from smolora_core.training.oom import Recovery, isolated_gradients, release, rng_states
from smolora_core.training.optimizer import Optimization
from smolora_core.training.position import mean
from smolora_core.training.randomness import seed_step
from smolora_core.training.ranks import Ranks


@attrs.frozen
class Totals:
    """What a step measured, over all ranks.

    Attributes:
        sum: the sum of the weighted losses.
        weight: their total weight.
        tokens: the tokens without padding.
        flags: the sums of the flags that ranks have exchanged.
    """

    sum: float
    weight: float
    tokens: int
    flags: tuple[float, ...] = ()

    @property
    def loss(self) -> float:
        """The mean loss."""
        return mean(self.sum, self.weight)


@attrs.define(kw_only=True)
class Step:
    """Computes the gradient of a step's mean loss, and updates the parameters by it.

    Stock Trainer scales the loss of most heads by the number of accumulation steps and ranks
    (huggingface/transformers#47688). Here each micro-batch adds its plain sum to the gradient; the ranks' gradients are added
    up once, and divided once by the weight of the whole step. No pass waits for another process, so each rank may compute a
    micro-batch that does not fit in memory in parts.

    Attributes:
        model: the model with its adapter.
        objective: reduces a micro-batch to a sum and a weight.
        arguments: precision and clipping.
        ranks: this process and the others.
        recovery: computes in parts what does not fit in memory.
        drops_out: whether the adapter drops out, so that rows need seeds.
        optimization: what updates the parameters; None if the model is only evaluated.
    """

    model: nn.Module
    objective: Objective
    arguments: TrainingArguments
    ranks: Ranks
    recovery: Recovery
    drops_out: bool = False
    optimization: Optimization | None = None
    _parameters: list[nn.Parameter] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._parameters = [each for each in self.model.parameters() if each.requires_grad]
        for each in self._parameters:
            self.ranks.adopt(each.data)
        self.recovery.device = self.arguments.device

    def accumulate(
        self,
        micro_batches: Iterable[Mapping[str, Any]],
        step: int,
        between: Callable[[], object],
        flags: Callable[[], list[float]],
    ) -> Totals:
        """Add up the gradients of a step's micro-batches.

        Args:
            micro_batches: this rank's micro-batches.
            step: the step's number, from 1.
            between: is called between two of them.
            flags: numbers that ranks exchange along with the sums, asked for at the end.
        """
        seed_step(self.arguments.seed, step, self.ranks.rank)
        self.set_mode(training=True)
        sums = torch.zeros(3, device=self.arguments.device)
        for index, batch in enumerate(micro_batches):
            if index:
                between()
            measured = self.compute(self._backward, batch, f"at step {step}", step)
            tokens = batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()
            sums += torch.stack([measured.sum.detach(), measured.weight, torch.as_tensor(tokens, device=sums.device)])
        return self.totals(sums, flags)

    def totals(self, sums: Tensor, flags: Callable[[], list[float]]) -> Totals:
        """Add up `[sum, weight, tokens]` and the flags of all ranks; the only device sync of a step but the gradient's norm."""
        loss, weight, tokens, *others = self.ranks.sum(torch.cat([sums, sums.new_tensor(flags())])).tolist()
        return Totals(loss, weight, int(tokens), tuple(others))

    def compute(self, work: Callable[..., Measured], batch: Mapping[str, Any], when: str, step: int) -> Measured:
        """Compute a micro-batch: at once, or in parts if it does not fit in memory. The arguments are those of `Recovery`."""
        failure, rng = None, rng_states(self.recovery.device)
        if self.recovery.fits(batch["input_ids"].numel()):
            try:
                return work(batch)
            except Exception as error:
                failure = release(error, rng)
        return self.recovery.measure(batch, work, when, step, failure)

    def measure(self, batch: Mapping[str, Any]) -> Measured:
        """Compute the objective of a micro-batch."""
        device = self.arguments.device
        inputs = {
            name: each.to(device, non_blocking=True) if isinstance(each, Tensor) else each
            for name, each in batch.items()
            if name != ROW_SEEDS
        }
        # The head and the loss run outside the model's forward pass, so all of it is autocast.
        with autocast(self.arguments):
            return self.objective(self.model, inputs)

    def _backward(self, batch: Mapping[str, Any]) -> Measured:
        with isolated_gradients(self._parameters), seeded(_seeds_of(batch)) if self.drops_out else nullcontext():
            measured = self.measure(batch)
            (self._scaler.scale(measured.sum) if self._scaler else measured.sum).backward()
        return Measured(measured.sum.detach(), measured.weight)

    def normalise(self, totals: Totals) -> float:
        """Turn the ranks' sums of gradients into the gradient of the mean loss, clip it, and return its norm before that.

        Raises:
            TrainingError: there is no gradient.
        """
        self._add_up_gradients()
        gradients = [each.grad for each in self._parameters if each.grad is not None]
        if not gradients:
            raise TrainingError("the loss does not depend on any trained tensor", hint="compute it from the model's outputs")
        torch._foreach_mul_(gradients, 1 / totals.weight if totals.weight else 0.0)
        if self.optimization:
            self.optimization.unscale()
        norm = nn.utils.get_total_norm(gradients)
        if self.arguments.max_grad_norm and self.arguments.max_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(self._parameters, self.arguments.max_grad_norm, norm)
        return float(norm)

    def drop_gradient(self) -> None:
        """Make the update leave the parameters and the optimizer as they are."""
        for each in self._parameters:
            # The scaler detects such a gradient, and skips the step itself.
            each.grad = torch.full_like(each, torch.nan) if self._scaler else None

    @property
    def _scaler(self) -> Any:
        return self.optimization and self.optimization.scaler

    def set_mode(self, *, training: bool) -> None:
        """Put the model in training or evaluation mode, and an optimizer that averages its parameters for evaluations."""
        self.model.train(training)
        if self.optimization:
            self.optimization.set_mode(training=training)

    def _add_up_gradients(self) -> None:
        """Exchange all gradients at once; a parameter without one on any rank keeps none."""
        if self.ranks.size == 1:
            return
        has = [each.grad is not None for each in self._parameters]
        flat = [torch.zeros_like(each).flatten() if each.grad is None else each.grad.flatten() for each in self._parameters]
        counts = self.ranks.sum(torch.tensor(has, dtype=torch.float32, device=self.arguments.device)).tolist()
        summed = self.ranks.sum(torch.cat([each.float() for each in flat])).split([len(each) for each in flat])
        for parameter, gradient, count in zip(self._parameters, summed, counts, strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None


def _seeds_of(batch: Mapping[str, Any]) -> RowSeeds:
    bounds = batch.get("cu_seq_lens_q")
    return RowSeeds(batch[ROW_SEEDS].tolist(), None if bounds is None else bounds.diff().tolist())


def autocast(arguments: TrainingArguments) -> Any:
    """Compute a block in the precision that the arguments choose."""
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16
    return torch.autocast(arguments.device.type, dtype=dtype, enabled=arguments.bf16 or arguments.fp16)
