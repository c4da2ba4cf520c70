"""The training loop: epochs of optimizer steps, with callbacks, evaluations and checkpoints between them."""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import TrainOutput, speed_metrics

from smolora_core.checkpoints.optimizer_state import (
    load_adapter,
    read_tensors,
    refuse_non_finite,
    write_optimizer,
)
from smolora_core.errors import TrainingError
from smolora_core.lora.dropout import row_dropout
from smolora_core.plugins.loading import describe_with_notes
from smolora_core.training.best import is_better, load_best, metric_of, stopped_early
from smolora_core.training.cadence import Cadence
from smolora_core.training.evaluation import ComputeMetrics, Evaluation, held_out_sets
from smolora_core.training.guards import first_loss_warning, skip_or_stop
from smolora_core.training.loaders import Collate, StepLoader, StepRows, make_order
from smolora_core.training.objective import Objective
from smolora_core.training.oom import Recovery
from smolora_core.training.optimizer import Optimization
from smolora_core.training.order import RowOrder
from smolora_core.training.position import Position, mean, new_state, read_position, restore_callbacks, write_position
from smolora_core.training.randomness import noisy_embeddings, seed_step
from smolora_core.training.ranks import Ranks
from smolora_core.training.signals import Stop, catch_signals
from smolora_core.training.step import Step

Save = Callable[[int, dict[str, float], Callable[[Path], None]], Path | None]
"""Commits a checkpoint from its step, its metrics, and a function that writes the loop's state into a folder.

Returns the checkpoint's folder, or None if it could not be saved and training should go on."""


@attrs.define(kw_only=True, eq=False)
class TrainingLoop:
    """Trains a model on rows; calls `transformers.TrainerCallback`s in the order and with the arguments that Trainer does.

    A run resumes from any optimizer step as if it had never stopped, with any number of processes: the rows of a step and the
    adapter's dropout depend on seed, epoch and step. What the base model itself draws, such as its own dropout, also depends
    on the split into micro-batches and processes.

    A step whose loss or gradient is not finite is skipped: parameters and optimizer do not change. It counts as a step, its
    rows are not trained again in this epoch and the schedule advances, but it is left out of the logged losses. All ranks
    see the same sums and skip together. fp16's gradient scaler skips overflows itself, without advancing the schedule.

    Attributes:
        model: the model with its adapter, on its device.
        args: transformers' arguments.
        objective: reduces a micro-batch to a sum and a weight.
        save: commits a checkpoint; called by the first process only.
        train_dataset: the rows to train on, or a stream of them.
        eval_dataset: the held-out rows, or several sets of them by name; None or empty if there are none.
        data_collator: makes micro-batches.
        eval_collator: makes padded batches for evaluations; by default the same.
        compute_task_metrics: computes the task's metrics.
        processing_class: the tokenizer, for callbacks.
        callbacks: callbacks besides `cadence`, in the order in which they are called.
        cadence: decides when to log, evaluate and save.
        recovery: computes in parts what does not fit in memory.
        order: the rows of each step; by default, steps of as many rows as `args` say.
        warn: receives warnings; called by every process.
        emit: receives events of progress, which are not recorded.
        state: transformers' state: the step, the epoch, what was logged, the best metric.
        position: where the run stands in its rows.
        optimization: the optimizer and the schedule, once training has begun.
        kept_step: the step of the best adapter, once training has ended and kept it instead of the last one.
    """

    model: Any
    args: TrainingArguments
    objective: Objective
    save: Save
    train_dataset: Any = None
    eval_dataset: Any = None
    data_collator: Collate
    eval_collator: Collate | None = None
    compute_task_metrics: ComputeMetrics | None = None
    processing_class: Any = None
    callbacks: Sequence[TrainerCallback] = ()
    cadence: Cadence = attrs.field(factory=Cadence)
    recovery: Recovery = attrs.field(factory=Recovery)
    order: RowOrder | None = None
    warn: Callable[[str], object] = lambda text: None
    emit: Callable[..., object] = lambda kind, **values: None
    state: TrainerState = attrs.field(init=False)
    control: TrainerControl = attrs.field(init=False, factory=TrainerControl)
    position: Position = attrs.field(init=False, factory=Position)
    optimization: Optimization = attrs.field(init=False)
    kept_step: int | None = attrs.field(init=False, default=None)
    _ranks: Ranks = attrs.field(init=False, factory=Ranks.current)
    _handler: CallbackHandler = attrs.field(init=False)
    _step: Step = attrs.field(init=False)
    _loader: StepLoader = attrs.field(init=False)
    _stop: Stop = attrs.field(init=False, factory=Stop)
    _saved_at: int = attrs.field(init=False, default=0)
    _tried_at: int = attrs.field(init=False, default=0)
    _is_training: bool = attrs.field(init=False, default=False)
    _started: float = attrs.field(init=False, default=0.0)
    _rate_and_norm: tuple[float, float | None] = attrs.field(init=False, default=(0.0, None))

    def __attrs_post_init__(self) -> None:
        self.cadence.ranks = self._ranks
        self._step = Step(
            model=self.model, objective=self.objective, arguments=self.args, ranks=self._ranks, recovery=self.recovery
        )
        self._handler = CallbackHandler([self.cadence, *self.callbacks], self.model, self.processing_class, None, None)
        self.callbacks = self._handler.callbacks
        if self.evaluates:
            first, collate = next(iter(held_out_sets(self.eval_dataset).values())), self.eval_collator or self.data_collator
            self._handler.eval_dataloader = DataLoader(first, self.args.per_device_eval_batch_size, collate_fn=collate)
        self.state = new_state(self.args, [*self.callbacks, self.control])
        self._call("on_init_end")

    def add_callback(self, callback: TrainerCallback) -> None:
        """Add a callback."""
        self._handler.add_callback(callback)

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out rows."""
        return self.eval_dataset is not None and len(self.eval_dataset) > 0

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that stopped training after a saved step; None if training was not stopped."""
        return self._stop.by

    def train(self, resume_from: Path | None = None) -> TrainOutput:
        """Train to the end or until a signal, resuming from a checkpoint's folder if one is given.

        Raises:
            CheckpointError: the checkpoint cannot be read, or was written for other parameters; nothing was loaded.
            TrainingError: training cannot continue; the last finished step is saved where that is possible.
        """
        with ExitStack() as stack:
            self._step.drops_out = stack.enter_context(row_dropout(self.model))
            stack.enter_context(noisy_embeddings(self.model, self.args.neftune_noise_alpha))
            self._stop = Stop(self._ranks.size, stack.enter_context(catch_signals()))
            self._is_training = True
            stack.callback(setattr, self, "_is_training", False)
            self._prepare(resume_from)
            self._call("on_train_begin")
            # Patience that ran out before a resume has not come back.
            self.control.should_training_stop |= resume_from is not None and stopped_early(self.callbacks) is not None
            if self.position.evaluation_due or (self.args.eval_on_start and self.state.global_step == 0):
                self._evaluate()
                self.control.should_training_stop |= self.stopped_by is not None
            while self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
                self._train_epoch()
            return self._finish()

    def _train_epoch(self) -> None:
        position, first, begun = self.position, self.state.global_step, self.position.done
        self._call("on_epoch_begin")
        for rows in self._loader.steps(position.epoch, position.done):
            self._take_step(rows)
            self._log_evaluate_save()
            if self.control.should_training_stop or self.control.should_epoch_stop:
                break
        if not self.control.should_training_stop:
            # Its last step has ended an epoch already, unless it is a stream's or a callback ended it.
            position.next_epoch()
        if self.state.global_step == first and begun == 0:
            self.warn(f"epoch {position.epoch} has no rows; training ends at step {first}")
            self.control.should_training_stop = True
        self._call("on_epoch_end")
        self._log_evaluate_save()

    def _take_step(self, rows: StepRows) -> None:
        """Take one optimizer step, on which all ranks agree."""
        step, state, position = self._step, self.state, self.position
        self._call("on_step_begin")
        try:
            between = partial(self._call, "on_substep_end")
            totals = step.accumulate(rows.micro_batches, state.global_step + 1, between, self._flags)
        except TrainingError as error:
            self._save_after(error)
            raise
        self._agree(totals.flags)
        norm = step.normalise(totals) if math.isfinite(totals.loss) else None
        skipped = self._skip(rows, totals.loss, norm)
        if not skipped:
            if state.global_step == 0 and (text := first_loss_warning(totals.loss, totals.weight)):
                self.warn(text)
            position.add_loss(totals.sum, totals.weight)
        self._call("on_pre_optimizer_step")
        self._rate_and_norm = self.optimization.rate, None if skipped else norm
        updated = self.optimization.update()
        self._call("on_optimizer_step")
        if updated:
            self.optimization.advance()
        self.model.zero_grad()
        state.global_step += 1
        position.done += len(rows.units)
        position.tokens += totals.tokens
        state.epoch = position.epoch + (position.done / position.units if position.units else 0.0)
        state.num_input_tokens_seen = position.tokens
        self.emit("step", step=state.global_step, steps=state.max_steps, loss=totals.loss, tokens=position.tokens)
        self._call("on_step_end")
        if self.control.should_epoch_stop or self._loader.order.ends_at(position.done):
            position.next_epoch()

    def _skip(self, rows: StepRows, loss: float, norm: float | None) -> bool:
        """Drop the gradient of a step that is not finite; return whether it was."""
        if norm is not None and (math.isfinite(norm) or self.optimization.scaler is not None):
            self.position.skipped = 0
            return False
        what, value = ("the loss", loss) if norm is None else ("the gradient's norm", norm)
        named = None if self._loader.streams else partial(self._loader.order.rows, rows.units)
        self.warn(skip_or_stop(what, value, self.state.global_step + 1, self.position.skipped, named, self._saved_at))
        self.position.skipped += 1
        self._step.drop_gradient()
        return True

    def _log_evaluate_save(self) -> None:
        if self.control.should_log and self.state.global_step > self.position.logged_at:
            self._log_loss()
        ends = self.stopped_by is not None or self.cadence.is_out_of_time
        # A callback may end training at any step, which is then the last one.
        if self.evaluates and (self.control.should_evaluate or (self.control.should_training_stop and not ends)):
            if self.stopped_by:
                self.position.evaluation_due = True
            else:
                self._evaluate()
        ends |= self.stopped_by is not None or self.control.should_training_stop
        if (self.control.should_save or ends) and self._tried_at != self.state.global_step:
            self._save_checkpoint()
        self.control.should_training_stop |= ends or self.stopped_by is not None

    def _log_loss(self) -> None:
        self.position.logged_at, loss = self.state.global_step, self.position.take_mean()
        if loss is not None:
            rate, norm = self._rate_and_norm
            self.log({"loss": loss, **({} if norm is None else {"grad_norm": norm}), "learning_rate": rate})

    def log(self, logs: dict[str, float]) -> None:
        """Add a line to the history, and give it to callbacks."""
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        if self.args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = self.position.tokens
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._call("on_log", logs=logs)

    def evaluate(self) -> dict[str, float]:
        """Compute the mean loss and the metrics of held-out rows, or of each named set of them, and log them.

        Returns:
            `eval_loss` and the task's metrics. Of several sets these are the first one's; each set's have its name in them too,
            as `eval_easy_loss`. Empty if a signal interrupted the evaluation, which then runs again on resume.
        """
        position, began = self.position, time.monotonic()
        # An evaluation that a signal already interrupted once is not interrupted again.
        stop = self._stop if self._is_training and not position.evaluation_due else Stop(self._ranks.size)
        collate = self.eval_collator or self.data_collator
        evaluation = Evaluation(self._step, collate, self.compute_task_metrics, self._batch_evaluated)
        try:
            metrics = evaluation.run(held_out_sets(self.eval_dataset), self.state.global_step, stop)
        except TrainingError as error:
            position.evaluation_due = True
            self._save_after(error)
            raise
        if metrics is None:
            position.evaluation_due = True
            return {}
        position.metrics, position.evaluated_at, position.evaluation_due = metrics, self.state.global_step, False
        if self.state.global_step == 0:
            position.metrics_before = metrics
        self.cadence.evaluation_seconds = time.monotonic() - began
        self.log(dict(metrics))
        self._call("on_evaluate", metrics=metrics)
        return metrics

    def _batch_evaluated(self, done: int, total: int) -> None:
        self.emit("evaluating", done=done, total=total)
        self._call("on_prediction_step")

    def evaluate_now(self) -> dict[str, float]:
        """Evaluate the model, unless it was already evaluated at this step."""
        return self.position.metrics if self.position.evaluated_at == self.state.global_step else self.evaluate()

    def _evaluate(self) -> None:
        """Evaluate once a step, and commit an adapter that is the best so far."""
        state, position, step = self.state, self.position, self.state.global_step
        if position.evaluated_at == step or not (metrics := self.evaluate()):
            return
        value = metric_of(metrics, self.args)
        self.optimization.adjust_to(value)
        if step and is_better(value, state, self.args):
            before = state.best_metric, state.best_global_step, position.best_metrics
            state.best_metric, state.best_global_step, position.best_metrics = value, step, metrics
            if self.args.load_best_model_at_end and not self._save_checkpoint():
                # What is not on the disk cannot be the result.
                state.best_metric, state.best_global_step, position.best_metrics = before

    def _save_checkpoint(self) -> bool:
        """Commit a checkpoint; return whether that worked, or the run goes on without it."""
        # Every rank has the same numbers, and decides the same.
        step, position = self.state.global_step, self.position
        self.optimization.set_mode(training=False)
        refuse_non_finite(self.model, self.optimization.optimizer, step=step)
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        metrics = {"loss": losses[-1]} if losses else {}
        metrics |= position.metrics if position.evaluated_at == step else {}
        place = self.save(step, metrics, self._write_state) if self._ranks.leads else None
        self._tried_at = step
        if saved := self._ranks.share(place is not None):
            self._saved_at = step
            self._call("on_save")
        return saved

    def _write_state(self, folder: Path) -> None:
        write_optimizer(folder, self.optimization.optimizer, self.model)
        position = self.position
        position.seconds = time.time() - self._started
        position.scheduler, position.scaler = self.optimization.states()
        write_position(folder, position, self.state, list(self.callbacks))

    def _save_after(self, error: TrainingError) -> None:
        """Commit the last finished step before an error ends the run; one process cannot where others wait for it."""
        step = self.state.global_step
        if not self._is_training or step == 0 or step == self._saved_at or self._ranks.size > 1:
            return
        try:
            self._save_checkpoint()
        except Exception as late:
            error.add_note(f"then saving the last step raised {describe_with_notes(late)}")

    def _prepare(self, resume_from: Path | None) -> None:
        """Build what trains the model, and restore it from a checkpoint."""
        args, saved = self.args, None
        kept: Mapping[str, Any] = {}
        if resume_from is not None:
            self.position, self.state, kept = read_position(resume_from, args)
            saved = read_tensors(resume_from, self.model)
            load_adapter(saved, self.model)
        elif self.state.global_step:
            self.position, self.state = Position(), new_state(self.args, [*self.callbacks, self.control])
        self._saved_at, self._tried_at, self.kept_step = self.state.global_step, self.state.global_step, None
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * self._ranks.size
        order = self.order or make_order(self.train_dataset, args, per_step)
        # A resume with steps of another size keeps the order of rows.
        order = attrs.evolve(order, per_block=self.position.per_block or order.per_step)
        self._loader = StepLoader(self.train_dataset, self.data_collator, order, args, self._ranks)
        self.position.count_steps(self.state, order, args, streams=self._loader.streams)
        self.optimization = self._step.optimization = Optimization.build(self.model, args, self.state.max_steps)
        if saved is not None:
            self.optimization.restore(saved, self.model, self.position.scheduler, self.position.scaler)
            restore_callbacks(kept, list(self.callbacks))
        self._handler.optimizer, self._handler.lr_scheduler = self.optimization.optimizer, self.optimization.schedule
        self._handler.train_dataloader = DataLoader(self.train_dataset, args.train_batch_size, collate_fn=self.data_collator)
        self._started = time.time() - self.position.seconds
        self.cadence.begin(self.state)
        self.model.zero_grad()

    def _finish(self) -> TrainOutput:
        self._agree(self._ranks.sum(torch.tensor(self._flags(), device=self.args.device)).tolist())
        step = self.state.global_step
        # A run that took its last step in time is complete.
        self.cadence.is_out_of_time &= step < self.state.max_steps
        self.optimization.set_mode(training=False)
        metrics = speed_metrics("train", self._started, num_samples=step * self.position.per_step, num_steps=step)
        metrics["train_loss"] = mean(*self.position.in_all) if self.position.in_all else 0.0
        self.log(dict(metrics))
        if self.args.load_best_model_at_end and not self.stopped_by and not self.cadence.is_out_of_time:
            self.kept_step = load_best(self.model, self.state, self.args, self.warn)
        if self.kept_step is not None:
            self.position.metrics, self.position.evaluated_at = self.position.best_metrics, step
        # What follows must not depend on where the run was resumed.
        seed_step(self.args.seed, step + 1, self._ranks.rank)
        self._call("on_train_end")
        return TrainOutput(step, metrics["train_loss"], metrics)

    def _flags(self) -> list[float]:
        return [*self.cadence.flags(), *self._stop.flags()]

    def _agree(self, sums: Sequence[float]) -> None:
        self.cadence.agree(sums[:2])
        self._stop.agree(sums[2:])

    def _call(self, event: str, **values: Any) -> None:
        self.control = getattr(self._handler, event)(self.args, self.state, self.control, **values)
