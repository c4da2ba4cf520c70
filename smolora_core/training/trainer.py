"""The one Trainer: micro-batches to sums, sums to a normalised step."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from smolora_core.training.guards import require_finite
from smolora_core.training.objective import Measured, Objective

__all__ = ["SmoLoRATrainer"]


class SmoLoRATrainer(transformers.Trainer):
    """A `transformers.Trainer` whose loss is an `Objective`, whatever the task.

    Stock Trainer scales the loss of most heads by the number of accumulation steps and ranks
    (huggingface/transformers#47688). Here each micro-batch adds its plain sum to the gradient, and the gradient is
    divided once, by the weight of the whole optimizer step.
    """

    def __init__(self, *, objective: Objective, save: Callable[[int, dict[str, float]], object], **arguments: Any) -> None:
        """Make a trainer.

        Args:
            objective: computes a micro-batch's sum and weight.
            save: commits a checkpoint of a step, with the latest metrics.
            arguments: of `transformers.Trainer`.
        """
        super().__init__(**arguments)
        self.objective: Objective = objective
        self.tokens_seen = 0
        self._commit = save
        self._pending = (torch.zeros(()), torch.zeros(()))
        self._latest: dict[str, float] = {}
        self._evaluated_at = -1

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Add a micro-batch to the gradient; with the last one of an optimizer step, normalise it.

        Returns:
            The step's loss with its last micro-batch, 0 before: the sum of both is what Trainer logs.
        """
        model.train()
        batch = self._prepare_inputs(inputs)
        self.tokens_seen += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
        measured = self.objective(model, batch)
        self.accelerator.backward(measured.sum)
        total, weight = self._pending
        self._pending = (
            total.to(measured.sum.device) + measured.sum.detach(),
            weight.to(measured.weight.device) + measured.weight,
        )
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        return self._normalise(model)

    def _normalise(self, model: nn.Module) -> Tensor:
        total, weight = self._over_ranks(*self._pending)
        self._pending = (torch.zeros(()), torch.zeros(()))
        loss = total / weight if weight > 0 else total
        require_finite(loss.item(), "the loss", self.state.global_step + 1)
        # Data parallelism has averaged the ranks' gradients; their sum over the weight of all ranks is what is due.
        scale = self.args.world_size / weight.clamp(min=torch.finfo(torch.float32).tiny)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(scale)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        require_finite(float(norm), "the gradient's norm", self.state.global_step + 1)
        return norm

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Average the loss over the supervised tokens of all rows, which no batch size changes."""
        model: Any = self.model
        training = model.training
        model.eval()
        total = Measured(torch.zeros((), device=self.args.device), torch.zeros((), device=self.args.device))
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                measured = self.objective(model, self._prepare_inputs(inputs))
                total = Measured(total.sum + measured.sum, total.weight + measured.weight)
        model.train(training)
        loss, weight = self._over_ranks(total.sum, total.weight)
        metrics = {f"{metric_key_prefix}_loss": (loss / weight.clamp(min=1)).item()}
        self._latest, self._evaluated_at = metrics, self.state.global_step
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_now(self) -> dict[str, float]:
        """Evaluate the model as it is, unless this step has been evaluated."""
        return self._latest if self._evaluated_at == self.state.global_step else self.evaluate()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._commit(self.state.global_step, {**self._last_logged(), **self._latest})

    def _last_logged(self) -> dict[str, float]:
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        return {"loss": logged[-1]["loss"]} if logged else {}

    def _over_ranks(self, total: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        pair = torch.stack([total.float(), weight.float()])
        if self.args.world_size > 1:
            torch.distributed.all_reduce(pair)
        return pair[0], pair[1]
