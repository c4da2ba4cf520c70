"""The trainer: sums over micro-batches, normalised once per optimizer step."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smolora_core.checkpoints.rng import capture, restore
from smolora_core.errors import TrainingError
from smolora_core.plugins.loading import describe_with_notes
from smolora_core.training.guards import first_loss_warning, rows_of_batches, skip_or_stop
from smolora_core.training.objective import Measured, Objective
from smolora_core.training.oom import Recovery, isolated_gradients, rng_states, set_rng_states
from smolora_core.training.resuming import ResumableTrainer, Save

ComputeMetrics = Callable[[Tensor, Tensor], Mapping[str, float]]
"""Computes metrics from what the objective observed in an evaluation, `[n, k]`, and the row numbers, `[n]`."""


class SmoLoRATrainer(ResumableTrainer):
    """A `transformers.Trainer` whose loss is an `Objective`, whatever the task.

    Stock Trainer scales the loss of most heads by the number of accumulation steps and ranks
    (huggingface/transformers#47688). Here each micro-batch adds its plain sum to the gradient, and the gradient is
    divided once, by the weight of the whole optimizer step.

    A step whose loss or gradient is not finite is skipped: parameters and optimizer do not change. It counts as a step, its
    rows are not trained again in this epoch and the schedule advances, but it is left out of the logged losses. All ranks
    see the same sums and skip together. fp16's gradient scaler skips overflows itself, without advancing the schedule.

    A micro-batch that does not fit in memory is computed in parts; if nothing helps, the last finished step is saved. Parts
    draw different random numbers than the whole micro-batch, so dropout differs. With several ranks nothing is recomputed:
    they exchange gradients once, in the last backward pass of a step.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        save: Save,
        compute_task_metrics: ComputeMetrics | None = None,
        eval_collator: Callable[..., Any] | None = None,
        warn: Callable[[str], object] = lambda text: None,
        recovery: Recovery | None = None,
        **arguments: Any,
    ) -> None:
        uses_cache = getattr(arguments["model"].config, "use_cache", None)
        super().__init__(save=save, **arguments)
        if uses_cache is not None:
            # Trainer disables the cache for good, and a merged model would keep that; the objective never uses it.
            arguments["model"].config.use_cache = uses_cache
        # The objective computes the weight, so Trainer need not count labels.
        self.model_accepts_loss_kwargs = False
        self.objective: Objective = objective
        self._compute_metrics, self._warn = compute_task_metrics, warn
        self._eval_collator = eval_collator or self.data_collator
        self._step_sum = self._zero()
        self._skipping = False
        self._losses_before = torch.zeros((), device=self.args.device)
        self._recovery = recovery or Recovery()
        self._first_of_step, self._step_ended = 0, True
        self._tokens_before, self._rng_before = self._tokens, rng_states(self.args.device)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """Add a micro-batch to the gradient, and normalise it after the last one of an optimizer step.

        Returns:
            The step's loss for its last micro-batch and 0 for the others: Trainer logs their sum.
        """
        model.train()
        batch = self._prepare_inputs(inputs)
        self._step_sum = _added(self._step_sum, self._accumulate(model, batch))
        self._tokens += batch["attention_mask"].sum() if "attention_mask" in batch else batch["input_ids"].numel()
        self._batches += 1
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        return self._normalise(model)

    def _accumulate(self, model: nn.Module, batch: Mapping[str, Any]) -> Measured:
        """Add the gradient of a micro-batch to that of its step."""
        if self._step_ended:
            self._first_of_step, self._step_ended = self._batches, False
            self._tokens_before, self._rng_before = self._tokens.clone(), rng_states(self.args.device)
        alone = self.args.world_size == 1
        work = partial(self._backward_isolated if alone else self._backward, model)
        return self._with_recovery(work, batch, "at", self.state.global_step + 1, splits=alone)

    def _backward(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        measured = self._measure(model, batch)
        self.accelerator.backward(measured.sum)
        return Measured(measured.sum.detach(), measured.weight)

    def _backward_isolated(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        assert self.optimizer is not None
        with isolated_gradients(each for group in self.optimizer.param_groups for each in group["params"]):
            return self._backward(model, batch)

    def _with_recovery(self, work: Any, batch: Mapping[str, Any], when: str, step: int, *, splits: bool = True) -> Measured:
        try:
            return self._recovery.measure(batch, work, f"{when} step {step}", step, splits=splits)
        except TrainingError as error:
            self._save_last_step(error)
            raise

    def _save_last_step(self, error: TrainingError) -> None:
        """Commit the last finished step; parameters and optimizer have not changed since."""
        step = self.state.global_step
        if not self.is_in_train or step == 0 or step == self._saved_at or self.args.world_size > 1:
            return
        self._evaluation_due = self._step_ended
        if not self._step_ended:
            self._batches, self._tokens = self._first_of_step, self._tokens_before
        if self._batches:
            set_rng_states(self._rng_before)
        else:
            # The state before the order of the epoch was drawn.
            restore(self._epoch_rng)
        try:
            self._save_checkpoint(self.model_wrapped, None)
        except Exception as late:
            error.add_note(f"then saving the last step raised {describe_with_notes(late)}")

    def _normalise(self, model: nn.Module) -> Tensor:
        loss, weight = self._mean_over_ranks(self._step_sum)
        self._step_sum, self._step_ended, self._skipping = self._zero(), True, False
        self._losses_before.copy_(self._tr_loss)
        if not math.isfinite(loss):
            self._skip("the loss", loss, model)
            return torch.zeros((), device=self.args.device)
        if self.state.global_step == 0 and self.is_world_process_zero() and (text := first_loss_warning(loss, weight)):
            self._warn(text)
        # Data parallelism averages the ranks' gradients; the step needs their sum over the weight of all ranks.
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.args.world_size / weight if weight else 0.0)
        return torch.tensor(loss, device=self.args.device)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if self._skipping:
            return None
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        # A gradient scaler detects infinities and skips the step itself.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            self._tr_loss.copy_(self._losses_before)
            self._skip("the gradient's norm", float(norm), model)
            return None
        self._skipped = 0
        return norm

    def _skip(self, what: str, value: float, model: nn.Module) -> None:
        text = skip_or_stop(what, value, self.state.global_step + 1, self._skipped, self._rows_of_step, self._saved_at)
        if self.is_world_process_zero():
            self._warn(text)
        self._skipping, self._skipped = True, self._skipped + 1
        # Skipped steps do not count in mean losses.
        self._globalstep_last_logged += 1
        self._initial_global_step += 1
        for parameter in model.parameters():
            if parameter.grad is not None and self.accelerator.scaler is None:
                parameter.grad = None
            elif parameter.grad is not None:
                # Let the scaler detect and skip the step.
                parameter.grad.fill_(torch.nan)

    def _rows_of_step(self) -> list[int] | None:
        """Look up the rows that all ranks trained on in this step."""
        loader, first = self.callback_handler.train_dataloader, self._first_of_step
        mine = rows_of_batches(loader, self._epoch, self._epoch_rng, first, self._batches - first)
        ranks = [mine] * self.args.world_size
        if self.args.world_size > 1:
            torch.distributed.all_gather_object(ranks, mine)
        return None if mine is None else [row for rows in ranks for row in rows or ()]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Compute the metrics and the mean loss over all supervised targets, which does not depend on the batch size."""
        model: Any = self.model
        training = model.training
        # An evaluation that a signal already interrupted once is not interrupted again.
        interruptible = self.is_in_train and not self._evaluation_due
        rng, self._rng_before = capture(), rng_states(self.args.device)
        model.eval()
        total, seen, count = self._zero(), [], 0
        with torch.no_grad():
            for inputs in self.get_eval_dataloader(eval_dataset):
                if interruptible and self._caught.first:
                    break
                batch = self._prepare_inputs(inputs)
                measured = self._with_recovery(partial(self._measure, model), batch, "evaluating after", self.state.global_step)
                total = _added(total, measured)
                if measured.observed is not None and measured.rows is not None:
                    seen.append((measured.observed.cpu(), measured.rows.cpu() + count))
                count += len(inputs["input_ids"])
        model.train(training)
        metrics = {f"{metric_key_prefix}_loss": self._mean_over_ranks(total)[0]}
        if interruptible and self.stopped_by:
            restore(rng)
            self._evaluation_due, self.control.should_evaluate = True, False
            return {}
        metrics |= {f"{metric_key_prefix}_{name}": value for name, value in self._metrics(seen, count).items()}
        self._latest, self._evaluated_at, self._evaluation_due = metrics, self.state.global_step, False
        if self.state.global_step == 0:
            self._before = metrics
        self.log(dict(metrics))  # a copy, because log adds the epoch
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _metrics(self, seen: list[tuple[Tensor, Tensor]], count: int) -> Mapping[str, float]:
        """Compute the metrics over all ranks' rows, on every rank, so that they agree."""
        ranks = [(seen, count)]
        if self.args.world_size > 1:
            ranks = [(seen, count)] * self.args.world_size
            torch.distributed.all_gather_object(ranks, (seen, count))
        observed, rows, before = [], [], 0
        for batches, its_count in ranks:
            observed += [each for each, _ in batches]
            rows += [numbers + before for _, numbers in batches]
            before += its_count
        return self._compute_metrics(torch.cat(observed), torch.cat(rows)) if self._compute_metrics and observed else {}

    def evaluate_now(self) -> dict[str, float]:
        """Evaluate the model, unless it was already evaluated at this step."""
        return self._latest if self._evaluated_at == self.state.global_step else self.evaluate()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Split the rows among ranks. Unlike in training, none is repeated to even out the ranks: it would count twice."""
        self.accelerator.even_batches, even = False, self.accelerator.even_batches
        self.args.dataloader_drop_last, drop = False, self.args.dataloader_drop_last
        self.data_collator, collator = self._eval_collator, self.data_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator
            self.accelerator.even_batches, self.args.dataloader_drop_last = even, drop

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Skip the count: Trainer would walk through all parameters for every micro-batch."""
        return 0

    def _measure(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        # The head and the loss run outside the model's forward pass, which is all that Trainer autocasts.
        with self.accelerator.autocast():
            return self.objective(model, batch)

    def _zero(self) -> Measured:
        return Measured(torch.zeros((), device=self.args.device), torch.zeros((), device=self.args.device))

    def _mean_over_ranks(self, measured: Measured) -> tuple[float, float]:
        """Return all ranks' sum over their weight, and the weight; the only device sync in a step.

        The signals that ranks have caught are exchanged along with it.
        """
        pair = torch.stack([measured.sum, measured.weight])
        if self.args.world_size > 1:
            pair = torch.cat([pair, pair.new_tensor(self._signal_flags())])
            torch.distributed.all_reduce(pair)
        total, weight, *flags = pair.tolist()
        if flags:
            self._agree(flags)
        return (total / weight if weight else total), weight


def _added(one: Measured, other: Measured) -> Measured:
    return Measured(one.sum + other.sum.detach().float(), one.weight + other.weight.float())
