"""The training loop: epochs of optimizer steps, with callbacks, evaluations and checkpoints between them."""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import DefaultFlowCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler, ExportableState
from transformers.trainer_utils import TrainOutput, speed_metrics

from smolora_core.checkpoints.optimizer_state import (
    load_adapter,
    load_optimizer,
    read_tensors,
    refuse_non_finite,
    write_optimizer,
)
from smolora_core.errors import TrainingError
from smolora_core.lora.dropout import row_dropout
from smolora_core.plugins.loading import describe_with_notes
from smolora_core.training.evaluation import ComputeMetrics, Evaluation
from smolora_core.training.guards import first_loss_warning, skip_or_stop
from smolora_core.training.loaders import Collate, StepLoader, StepRows, make_order
from smolora_core.training.objective import Objective
from smolora_core.training.oom import Recovery
from smolora_core.training.optimizer import BY_METRIC, make_optimizer, make_schedule, restore_schedule
from smolora_core.training.order import RowOrder
from smolora_core.training.position import Position, mean, read_position, restore_callbacks, write_position
from smolora_core.training.ranks import Ranks
from smolora_core.training.signals import STOPPING, Caught, catch_signals
from smolora_core.training.step import Step, seed_step

Save = Callable[[int, dict[str, float], Callable[[Path], None]], object]
"""Commits a checkpoint from its step, its metrics, and a function that writes the loop's state into a folder."""


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
        state: transformers' state: the step, the epoch, what was logged, the best metric.
        position: where the run stands in its rows.
        train_dataset: the rows to train on, or a stream of them.
        eval_dataset: the held-out rows; several sets of them by name; None if there are none.
        data_collator: makes micro-batches.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        objective: Objective,
        save: Save,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        data_collator: Collate,
        eval_collator: Collate | None = None,
        compute_task_metrics: ComputeMetrics | None = None,
        processing_class: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        recovery: Recovery | None = None,
        order: RowOrder | None = None,
        warn: Callable[[str], object] = lambda text: None,
        emit: Callable[..., object] = lambda kind, **values: None,
    ) -> None:
        """Make a loop; nothing is computed yet.

        Args:
            model: the model with its adapter, on its device.
            args: transformers' arguments.
            objective: reduces a micro-batch to a sum and a weight.
            save: commits a checkpoint; called by the first process only.
            train_dataset: the rows to train on, or a stream of them.
            eval_dataset: the held-out rows, or several sets of them by name.
            data_collator: makes micro-batches.
            eval_collator: makes padded batches for evaluations; by default the same.
            compute_task_metrics: computes the task's metrics.
            processing_class: the tokenizer, for callbacks.
            callbacks: callbacks besides transformers' `DefaultFlowCallback`.
            recovery: computes in parts what does not fit in memory.
            order: the rows of each step; by default, steps of as many rows as `args` say.
            warn: receives warnings.
            emit: receives events of progress, which are not recorded.
        """
        self.model, self.args, self.train_dataset, self.eval_dataset = model, args, train_dataset, eval_dataset
        self.data_collator, self._eval_collator = data_collator, eval_collator
        self._metrics, self._save, self._warn, self._emit = compute_task_metrics, save, warn, emit
        self.order, self.position = order, Position()
        self.optimizer: Any = None
        self.lr_scheduler: Any = None
        self.ranks = Ranks.current()
        self._step = Step(model=model, objective=objective, arguments=args, ranks=self.ranks, recovery=recovery or Recovery())
        self._caught, self._agreed, self._saved_at, self._in_train = Caught(), None, -1, False
        self._handler = CallbackHandler([DefaultFlowCallback, *(callbacks or ())], model, processing_class, None, None)
        if self.evaluates:
            first = next(iter(self._sets(eval_dataset).values()))
            collate: Any = eval_collator or data_collator
            self._handler.eval_dataloader = DataLoader(first, args.per_device_eval_batch_size, collate_fn=collate)
        self.control = TrainerControl()
        self.state = self._new_state()
        self._call("on_init_end")

    def add_callback(self, callback: TrainerCallback) -> None:
        """Add a callback."""
        self._handler.add_callback(callback)

    @property
    def evaluates(self) -> bool:
        """Whether there are held-out rows."""
        return self.eval_dataset is not None and len(self.eval_dataset) > 0

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on so far, without padding, over all processes."""
        return self.position.tokens

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that stopped training after a saved step; None if training was not stopped."""
        return self._caught.first if self.ranks.size == 1 else self._agreed

    def train(self, resume_from: Path | None = None) -> TrainOutput:
        """Train to the end or until a signal, resuming from a checkpoint's folder if one is given.

        Raises:
            CheckpointError: the checkpoint cannot be read, or was written for other parameters; nothing was loaded.
            TrainingError: training cannot continue; the last finished step is saved where that is possible.
        """
        with ExitStack() as stack:
            self._step.drops_out = stack.enter_context(row_dropout(self.model))
            self._caught, self._agreed = stack.enter_context(catch_signals()), None
            self._in_train = True
            stack.callback(setattr, self, "_in_train", False)
            self._prepare(resume_from)
            self._call("on_train_begin")
            if self.position.evaluation_due:
                self._evaluate()
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
        else:
            # A stream only ends here; other epochs ended with their last step.
            position.next_epoch()
        if self.control.should_epoch_stop:
            position.next_epoch()
        if self.state.global_step == first and begun == 0:
            self._warn(f"epoch {position.epoch} has no rows; training ends at step {first}")
            self.control.should_training_stop = True
        self._call("on_epoch_end")
        self._log_evaluate_save()

    def _take_step(self, rows: StepRows) -> None:
        """Take one optimizer step, on which all ranks agree."""
        step, state, position = self._step, self.state, self.position
        self._call("on_step_begin")
        try:
            totals = step.accumulate(
                rows.micro_batches, state.global_step + 1, partial(self._call, "on_substep_end"), self._flags
            )
        except TrainingError as error:
            self._save_after(error)
            raise
        self._agree(totals.flags)
        norm = step.normalise(totals) if math.isfinite(totals.loss) else None
        skipped = self._skip(rows, totals.loss, norm)
        if not skipped:
            if state.global_step == 0 and (text := first_loss_warning(totals.loss, totals.weight)):
                self._warn(text)
            position.add_loss(totals.sum, totals.weight)
        self._call("on_pre_optimizer_step")
        overflowed = step.update()
        self._call("on_optimizer_step")
        self._rate, self._norm = self._learning_rate(), None if skipped else norm
        if not overflowed and not isinstance(self.lr_scheduler, BY_METRIC):
            self.lr_scheduler.step()
        self.model.zero_grad()
        state.global_step += 1
        position.done += len(rows.units)
        position.tokens += totals.tokens
        state.epoch = position.epoch + (position.done / position.units if position.units else 0.0)
        if self._loader.order.ends_at(position.done):
            position.next_epoch()
        state.num_input_tokens_seen = position.tokens
        self._emit("step", step=state.global_step, steps=state.max_steps, loss=totals.loss, tokens=position.tokens)
        self._call("on_step_end")

    def _skip(self, rows: StepRows, loss: float, norm: float | None) -> bool:
        """Drop the gradient of a step that is not finite; return whether it was."""
        if norm is None:
            what, value = "the loss", loss
        elif not math.isfinite(norm) and self._step.scaler is None:
            what, value = "the gradient's norm", norm
        else:
            self.position.skipped = 0
            return False
        named = None if self._loader.streams else partial(self._loader.order.rows, rows.units)
        self._warn(skip_or_stop(what, value, self.state.global_step + 1, self.position.skipped, named, self._saved_at))
        self.position.skipped += 1
        self._step.drop_gradient()
        return True

    def _log_evaluate_save(self) -> None:
        state, control, position = self.state, self.control, self.position
        if control.should_log and state.global_step > position.logged_at:
            self._log_loss()
        control.should_evaluate &= self.evaluates
        if self.stopped_by and control.should_evaluate:
            position.evaluation_due, control.should_evaluate = True, False
        if control.should_evaluate:
            self._evaluate()
        if self.stopped_by:
            self.control.should_save |= self._saved_at != state.global_step
        if self.control.should_save:
            if self._saved_at != state.global_step:
                self._save_checkpoint()
            self._call("on_save")
        self.control.should_training_stop |= self.stopped_by is not None

    def _log_loss(self) -> None:
        position = self.position
        position.logged_at, loss = self.state.global_step, position.take_mean()
        if loss is not None:
            norm = {} if self._norm is None else {"grad_norm": self._norm}
            self.log({"loss": loss, **norm, "learning_rate": self._rate})

    def log(self, logs: dict[str, float]) -> None:
        """Add a line to the history, and give it to callbacks."""
        if self.state.epoch is not None:
            logs["epoch"] = self.state.epoch
        if self.args.include_num_input_tokens_seen != "no":
            logs["num_input_tokens_seen"] = self.position.tokens
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._call("on_log", logs=logs)

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        """Compute the mean loss and the metrics of held-out rows, or of each named set of them, and log them.

        Returns:
            `eval_loss` and the task's metrics. Of several sets these are the first one's; each set's have its name in them too,
            as `eval_easy_loss`. Empty if a signal interrupted the evaluation, which then runs again on resume.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        position, metrics = self.position, dict[str, float]()
        # An evaluation that a signal already interrupted once is not interrupted again.
        interruptible = self._in_train and not position.evaluation_due
        evaluation = Evaluation(
            step=self._step,
            collate=self._eval_collator or self.data_collator,
            metrics=self._metrics,
            stops=lambda: interruptible and self._caught.first is not None,
            flags=self._flags,
            progress=lambda done, total: self._emit("evaluating", done=done, total=total),
        )
        for name, each in self._sets(rows).items():
            try:
                found, totals = evaluation.run(each, self.state.global_step)
            except TrainingError as error:
                position.evaluation_due = True
                self._save_after(error)
                raise
            self._agree(totals.flags)
            if interruptible and self.stopped_by:
                position.evaluation_due, self.control.should_evaluate = True, False
                return {}
            metrics |= {f"eval_{key}": value for key, value in found.items() if not metrics}
            metrics |= {f"eval_{name}_{key}": value for key, value in found.items() if name}
        position.metrics, position.evaluated_at, position.evaluation_due = metrics, self.state.global_step, False
        if self.state.global_step == 0:
            position.metrics_before = metrics
        self.log(dict(metrics))
        self._call("on_evaluate", metrics=metrics)
        return metrics

    @staticmethod
    def _sets(rows: Any) -> Mapping[str, Any]:
        """Return held-out sets by name; a single one has none."""
        return rows if isinstance(rows, Mapping) else {"": rows}

    def evaluate_now(self) -> dict[str, float]:
        """Evaluate the model, unless it was already evaluated at this step."""
        return self.position.metrics if self.position.evaluated_at == self.state.global_step else self.evaluate()

    def _evaluate(self) -> None:
        self.control.should_evaluate = False
        metrics = self.evaluate_now()
        if metrics and isinstance(self.lr_scheduler, BY_METRIC):
            self.lr_scheduler.step(metrics[f"eval_{(self.args.metric_for_best_model or 'loss').removeprefix('eval_')}"])

    def _save_checkpoint(self) -> None:
        # Every rank has the same numbers, and decides the same.
        step, position = self.state.global_step, self.position
        refuse_non_finite(self.model, self.optimizer, step=step)
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        metrics = {"loss": losses[-1]} if losses else {}
        metrics |= position.metrics if position.evaluated_at == step else {}
        if self.ranks.leads:
            self._save(step, metrics, self._write_state)
        self._saved_at = step
        self.ranks.wait()

    def _write_state(self, folder: Path) -> None:
        write_optimizer(folder, self.optimizer, self.model)
        scaler = self._step.scaler
        self.position.seconds, self.position.scheduler = time.time() - self._started, self.lr_scheduler.state_dict()
        self.position.scaler = scaler and scaler.state_dict()
        write_position(folder, self.position, self.state, self._handler.callbacks)

    def _save_after(self, error: TrainingError) -> None:
        """Commit the last finished step before an error ends the run; one process cannot where others wait for it."""
        step = self.state.global_step
        if not self._in_train or step == 0 or step == self._saved_at or self.ranks.size > 1:
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
            self.position, self.state, kept = read_position(resume_from)
            saved = read_tensors(resume_from, self.model)
            load_adapter(saved, self.model)
            self._saved_at = self.state.global_step
        elif self.state.global_step:
            self.position, self.state = Position(), self._new_state()
        per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * self.ranks.size
        order = self.order or make_order(self.train_dataset, args, per_step)
        self._loader = StepLoader(
            dataset=self.train_dataset, collate_fn=self.data_collator, order=order, arguments=args, ranks=self.ranks
        )
        self.position.fit_to(order.count, order.per_step)
        self._set_steps(order)
        self.optimizer = self._step.optimizer = make_optimizer(self.model, args)
        self._step.scaler = torch.amp.GradScaler(args.device.type) if args.fp16 else None
        self.lr_scheduler = make_schedule(self.optimizer, args, self.state.max_steps)
        if saved is not None:
            load_optimizer(saved, self.optimizer, self.model)
            restore_schedule(self.lr_scheduler, self.optimizer, self.position.scheduler)
            restore_callbacks(kept, self._handler.callbacks)
            if self._step.scaler is not None and self.position.scaler is not None:
                self._step.scaler.load_state_dict(self.position.scaler)
        self._handler.optimizer, self._handler.lr_scheduler = self.optimizer, self.lr_scheduler
        self._handler.train_dataloader = self._loader
        self._started, self._rate, self._norm = time.time() - self.position.seconds, self._learning_rate(), None
        self.model.zero_grad()

    def _set_steps(self, order: RowOrder) -> None:
        """Count the steps of the run; an epoch may have another number of them than before the resume."""
        args, position, state = self.args, self.position, self.state
        per_epoch = order.steps_per_epoch
        if per_epoch == 0 and not self._loader.streams:
            raise TrainingError(
                f"{order.count} rows do not fill an optimizer step of {order.per_step}", hint="lower the batch size"
            )
        taken = position.epoch * per_epoch + math.ceil(position.done / order.per_step)
        left = math.ceil(args.num_train_epochs * per_epoch) - taken
        state.max_steps = args.max_steps if args.max_steps > 0 else state.global_step + max(0, left)
        state.num_train_epochs = math.ceil(state.max_steps / per_epoch) if per_epoch else 1
        state.train_batch_size = args.per_device_train_batch_size
        state.compute_steps(args, state.max_steps)

    def _new_state(self) -> TrainerState:
        stateful: list[Any] = [each for each in (*self._handler.callbacks, self.control) if isinstance(each, ExportableState)]
        return TrainerState(
            is_local_process_zero=self.args.local_process_index == 0,
            is_world_process_zero=self.ranks.leads,
            stateful_callbacks=stateful,
        )

    def _finish(self) -> TrainOutput:
        if self.ranks.size > 1:
            self._agree(self.ranks.sum(torch.tensor(self._flags(), device=self.args.device)).tolist())
        step = self.state.global_step
        # What follows must not depend on where the run was resumed.
        seed_step(self.args.seed, step + 1, self.ranks.rank)
        metrics = speed_metrics("train", self._started, num_samples=step * self.position.per_step, num_steps=step)
        metrics["train_loss"] = mean(*self.position.in_all) if self.position.in_all else 0.0
        self.log(dict(metrics))
        self._call("on_train_end")
        return TrainOutput(step, metrics["train_loss"], metrics)

    def _learning_rate(self) -> float:
        by_metric = isinstance(self.lr_scheduler, BY_METRIC)
        return float(self.optimizer.param_groups[0]["lr"] if by_metric else self.lr_scheduler.get_last_lr()[0])

    def _flags(self) -> list[float]:
        return [float(each == self._caught.first) for each in STOPPING]

    def _agree(self, flags: Sequence[float]) -> None:
        """Adopt a signal that any rank caught, so that all of them stop at the same step."""
        self._agreed = self._agreed or next((each for each, flag in zip(STOPPING, flags, strict=False) if flag), None)

    def _call(self, event: str, **values: Any) -> None:
        self.control = getattr(self._handler, event)(self.args, self.state, self.control, **values)
