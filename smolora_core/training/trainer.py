"""The one Trainer: micro-batches to sums, sums to a normalised step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from smolora_core.training.guards import require_finite, strange_start
from smolora_core.training.objective import Measured, Objective

__all__ = ["SmoLoRATrainer", "Summarise"]

Summarise = Callable[[Tensor, Tensor], Mapping[str, float]]


class SmoLoRATrainer(transformers.Trainer):
    """A `transformers.Trainer` whose loss is an `Objective`, whatever the task.

    Stock Trainer scales the loss of most heads by the number of accumulation steps and ranks
    (huggingface/transformers#47688). Here each micro-batch adds its plain sum to the gradient, and the gradient is
    divided once, by the weight of the whole optimizer step.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        save: Callable[[int, dict[str, float]], object],
        summarise: Summarise | None = None,
        eval_collator: Callable[..., Any] | None = None,
        warn: Callable[[str], object] = lambda text: None,
        **arguments: Any,
    ) -> None:
        """Make a trainer.

        Args:
            objective: computes a micro-batch's sum and weight.
            save: commits a checkpoint of a step, with the latest metrics.
            summarise: computes metrics of what the objective observed in an evaluation, and of the rows' numbers.
            eval_collator: makes micro-batches of an evaluation, where that is done otherwise than in training.
            warn: told of a first step that is strange.
            arguments: of `transformers.Trainer`.
        """
        self._uses_cache = getattr(arguments["model"].config, "use_cache", None)
        super().__init__(**arguments)
        # The objective counts what it sums up; Trainer need not count labels for a loss that the model would compute.
        self.model_accepts_loss_kwargs = False
        self.objective: Objective = objective
        self._commit, self._summarise, self._warn = save, summarise, warn
        self._eval_collator = eval_collator or self.data_collator
        self._pending = self._nothing()
        self._tokens = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self._latest: dict[str, float] = {}
        self._evaluated_at = -1

    @property
    def tokens_seen(self) -> int:
        """Tokens that training has computed so far, without padding."""
        return int(self._tokens)

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train, and leave the model's config as it was: Trainer switches its cache off, and a merged model would keep that."""
        try:
            return super().train(*arguments, **named)
        finally:
            if self._uses_cache is not None:
                self.model.config.use_cache = self._uses_cache  # type: ignore[union-attr]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Add a micro-batch to the gradient; with the last one of an optimizer step, normalise it.

        Returns:
            The step's loss with its last micro-batch, 0 before: the sum of both is what Trainer logs.
        """
        model.train()
        batch = self._prepare_inputs(inputs)
        self._tokens += batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()
        measured = self._measure(model, batch)
        self.accelerator.backward(measured.sum)
        self._pending = _added(self._pending, measured)
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        return self._normalise(model)

    def _normalise(self, model: nn.Module) -> Tensor:
        loss, weight = self._mean_over_ranks(self._pending)
        self._pending = self._nothing()
        require_finite(loss, "the loss", self.state.global_step + 1)
        if self.state.global_step == 0 and self.is_world_process_zero() and (text := strange_start(loss, weight)):
            self._warn(text)
        # Data parallelism has averaged the ranks' gradients; their sum over the weight of all ranks is what is due.
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.args.world_size / weight if weight else 0.0)
        return torch.tensor(loss, device=self.args.device)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        # A gradient scaler looks for infinities itself, and skips the step.
        if self.accelerator.scaler is None:
            require_finite(float(norm), "the gradient's norm", self.state.global_step + 1)
        return norm

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Average the loss over all that is supervised in all rows, which no batch size changes, and compute the metrics."""
        model: Any = self.model
        training = model.training
        model.eval()
        total, seen, count = self._nothing(), [], 0
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                measured = self._measure(model, self._prepare_inputs(inputs))
                total = _added(total, measured)
                if measured.observed is not None and measured.rows is not None:
                    seen.append((measured.observed.cpu(), measured.rows.cpu() + count))
                count += len(inputs["input_ids"])
        model.train(training)
        metrics = {f"{metric_key_prefix}_loss": self._mean_over_ranks(total)[0]}
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in self._metrics(seen, count).items()}
        self._latest, self._evaluated_at = metrics, self.state.global_step
        self.log(dict(metrics))  # which adds the epoch to what it is given
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _metrics(self, seen: list[tuple[Tensor, Tensor]], count: int) -> Mapping[str, float]:
        """Compute metrics of what all ranks have seen, on each of them, so that they agree."""
        ranks = [(seen, count)]
        if self.args.world_size > 1:
            ranks = [(seen, count)] * self.args.world_size
            torch.distributed.all_gather_object(ranks, (seen, count))
        observed, rows, before = [], [], 0
        for batches, its_count in ranks:
            observed += [each for each, _ in batches]
            rows += [numbers + before for _, numbers in batches]
            before += its_count
        return self._summarise(torch.cat(observed), torch.cat(rows)) if self._summarise and observed else {}

    def evaluate_now(self) -> dict[str, float]:
        """Evaluate the model as it is, unless this step has been evaluated."""
        return self._latest if self._evaluated_at == self.state.global_step else self.evaluate()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Give every rank its share of the rows; made even by repeating some, as for training, these would count twice."""
        self.accelerator.even_batches, even = False, self.accelerator.even_batches
        self.args.dataloader_drop_last, drop = False, self.args.dataloader_drop_last
        self.data_collator, collator = self._eval_collator, self.data_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator
            self.accelerator.even_batches, self.args.dataloader_drop_last = even, drop

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count nothing: Trainer would walk through all parameters in every micro-batch, for a figure that nobody reads."""
        return 0

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.is_world_process_zero():
            self._commit(self.state.global_step, {**self._last_logged(), **self._latest})
        self.accelerator.wait_for_everyone()

    def _last_logged(self) -> dict[str, float]:
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        return {"loss": logged[-1]["loss"]} if logged else {}

    def _measure(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        # The head and the loss stand outside the model's forward, which is all that Trainer puts under autocast.
        with self.accelerator.autocast():
            return self.objective(model, batch)

    def _nothing(self) -> Measured:
        return Measured(torch.zeros((), device=self.args.device), torch.zeros((), device=self.args.device))

    def _mean_over_ranks(self, measured: Measured) -> tuple[float, float]:
        """Divide the sum of all ranks by their weight, which is returned too; the only wait for the device in a step."""
        pair = torch.stack([measured.sum, measured.weight])
        if self.args.world_size > 1:
            torch.distributed.all_reduce(pair)
        total, weight = pair.tolist()
        return (total / weight if weight else total), weight


def _added(one: Measured, other: Measured) -> Measured:
    return Measured(one.sum + other.sum.detach().float(), one.weight + other.weight.float())
