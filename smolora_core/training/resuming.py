"""Save the full training state, resume from it exactly, and stop on signals."""

import functools
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_utils import has_length

from smolora_core.batches.token_budget import BudgetSampler
from smolora_core.checkpoints.optimizer_state import (
    SavedTensors,
    load_adapter,
    load_optimizer,
    read_tensors,
    refuse_non_finite,
    write_optimizer,
)
from smolora_core.checkpoints.rng import RngState, capture, read_rng, restore, write_rng
from smolora_core.errors import CheckpointError
from smolora_core.training.position import Progress, continue_callbacks, read_progress, write_progress
from smolora_core.training.signals import STOPPING, Caught, catch_signals, without_signals

Save = Callable[[int, dict[str, float], Callable[[Path], None]], object]
"""Commits a checkpoint from its step, its metrics, and a function that writes the trainer's state into a folder."""


@attrs.frozen
class _Resumed:
    tensors: SavedTensors
    progress: Progress
    callbacks: Mapping[str, Any]
    rng: Mapping[str, RngState]


class ResumableTrainer(transformers.Trainer):
    """A `transformers.Trainer` that resumes from any optimizer step as if it had never stopped.

    It also saves what stock Trainer does not: the order of an epoch whose sampler uses the global RNG, the losses since the
    last log line, how much of an epoch or stream was read, an interrupted evaluation. Nothing is pickled.

    The schedule may change: learning rate, epochs or steps, warm-up and kind come from this run's arguments, and the next
    step has the rate that a run with these arguments has at that step. A run that already has enough steps trains nothing.
    A scheduler that is not a function of the step alone continues from its own state.

    Collators that use random numbers must derive them from the epoch, which they get by `set_epoch`: prefetched batches
    are read again after a resume, with the RNG in another state.
    """

    def __init__(self, *, save: Save, train_sampler: BudgetSampler | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.train_sampler, self._commit = train_sampler, save
        self._tokens = torch.zeros((), dtype=torch.int64, device=self.args.device)
        self._latest: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._evaluated_at = self._saved_at = -1
        self._evaluation_due = False
        self._skipped = self._epoch = self._batches = 0
        self._unit = (0, 0)
        self._batches_in_epoch: float = 0
        self._seconds, self._started = 0.0, time.time()
        self._epoch_rng: RngState = {}
        self._resumed: _Resumed | None = None
        self._caught = Caught()
        self._agreed: signal.Signals | None = None

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on so far, without padding."""
        return int(self._tokens)

    @property
    def metrics_before(self) -> dict[str, float]:
        """Metrics of the evaluation before the first step, also in a resumed run."""
        return self._before

    @property
    def stopped_by(self) -> signal.Signals | None:
        """The signal that stopped training after a saved step; None if training was not stopped."""
        return self._caught.first if self.args.world_size == 1 else self._agreed

    def train(self, *arguments: Any, resume_from: Path | None = None, **named: Any) -> Any:
        """Train to the end or until a signal, resuming from a checkpoint's folder if one is given.

        Raises:
            CheckpointError: the checkpoint cannot be read, or was written for other parameters or another number of processes;
                nothing was loaded.
        """
        if resume_from is not None:
            assert self.model is not None
            progress, callbacks = read_progress(resume_from)
            if (ranks := len(progress.tokens)) != self.args.world_size:
                what = f"was written by a run of {ranks} processes, but this run has {self.args.world_size}"
                hint = f"resume with torchrun --nproc_per_node {ranks}" if ranks > 1 else "resume without torchrun"
                raise CheckpointError(what, where=str(resume_from), hint=hint)
            rng = read_rng(resume_from, self.args.process_index)
            self._resumed = _Resumed(read_tensors(resume_from, self.model), progress, callbacks, rng)
            # Samplers take their seed from torch's RNG.
            restore(rng["epoch"])
            named["resume_from_checkpoint"] = str(resume_from)
        self._agreed = None
        with catch_signals() as self._caught:
            return super().train(*arguments, **named)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self._resumed is not None and self.model is not None
        load_adapter(self._resumed.tensors, self.model)

    def _init_training_state(self, max_steps: int, steps_in_epoch: int, *arguments: Any) -> tuple[int, int]:
        first: tuple[int, int] = super()._init_training_state(max_steps, steps_in_epoch, *arguments)
        self._unit = (steps_in_epoch, self.args.gradient_accumulation_steps) if has_length(self.train_dataset) else (0, 0)
        if self._resumed is None:
            return first
        if tuple(self._resumed.progress.unit) != self._unit:
            # The batch size was overridden: recount the steps in epochs of the new size.
            counted = attrs.evolve(self._resumed.progress, epoch=first[0], batches=first[1])
            self._resumed = attrs.evolve(self._resumed, progress=counted)
        # The cadence of logging, evaluating and saving comes from this run's config.
        self.state.compute_steps(self.args, max_steps)
        progress = self._resumed.progress
        self._tokens.fill_(progress.tokens[self.args.process_index])
        self._latest, self._before = progress.metrics, progress.metrics_before
        self._evaluated_at, self._evaluation_due = progress.evaluated_at, progress.evaluation_due
        self._saved_at, self._skipped, self._seconds = self.state.global_step, progress.skipped, progress.seconds
        return progress.epoch, progress.batches

    def _load_callback_state(self) -> None:
        assert self._resumed is not None
        continue_callbacks(self._resumed.callbacks, self.callback_handler.callbacks)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._resumed is None:
            return
        assert self.model is not None and self.optimizer is not None
        load_optimizer(self._resumed.tensors, self.optimizer, self.model)
        scheduler: Any = self.lr_scheduler
        saved = self._resumed.progress.scheduler
        if isinstance(scheduler, LambdaLR):
            saved = {**saved, "base_lrs": scheduler.base_lrs}
            pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            saved["_last_lr"] = [rate * shape(saved["last_epoch"]) for rate, shape in pairs]
        scheduler.load_state_dict(saved)
        for group, rate in zip(self.optimizer.param_groups, saved["_last_lr"], strict=True):
            group["lr"] = rate

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self._resumed is not None and self._resumed.progress.scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self._resumed.progress.scaler)

    def _run_epoch(self, **named: Any) -> None:  # type: ignore[override]
        self._started, self._epoch, self._batches = named["start_time"], named["epoch"], 0
        loader = named["train_dataloader"]
        self._batches_in_epoch = named["steps_in_epoch"] if has_length(loader) else float("inf")
        if self._resumed is not None:
            self._continue_sums(self._resumed.progress)
            self._batches = self._resumed.progress.batches
            if self.state.global_step >= self.state.max_steps:
                self.control.should_training_stop = True
                return
            if self._batches:
                restore(self._resumed.rng["epoch"])
            else:
                self._load_rng_state(None)
        self._epoch_rng = capture()
        for each in (loader, self.data_collator):
            if hasattr(each, "set_epoch"):
                each.set_epoch(self._epoch)
        super()._run_epoch(**named)  # type: ignore[no-untyped-call]

    def _continue_sums(self, progress: Progress) -> None:
        self._tr_loss.fill_(progress.loss_since_log)
        self._total_loss_scalar = progress.loss_before
        self._globalstep_last_logged = progress.logged_at
        self._initial_global_step = progress.steps_without_loss

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Restore the step's RNG state, after everything that starts an epoch has used the epoch's state."""
        if self._resumed is None:
            return
        resumed, self._resumed = self._resumed, None
        restore(resumed.rng["now"])
        if self._evaluation_due and self.eval_dataset is not None:
            self._evaluate(None, None)

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        try:
            metrics: dict[str, float] = super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)
        except KeyError:
            # A scheduler needs a loss, but a signal interrupted the evaluation, which runs again on resume.
            if self._evaluation_due:
                return {}
            raise
        return metrics

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        if self._resumed is not None:
            self._continue_sums(self._resumed.progress)
            self._load_rng_state(None)
        if self.args.world_size > 1:
            flags = torch.tensor(self._signal_flags(), device=self.args.device)
            torch.distributed.all_reduce(flags)
            self._agree(flags.tolist())
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds)  # type: ignore[no-untyped-call]

    def _signal_flags(self) -> list[float]:
        return [float(each == self._caught.first) for each in STOPPING]

    def _agree(self, flags: list[float]) -> None:
        """Adopt a signal that any rank caught, so that all of them stop at the same step."""
        self._agreed = self._agreed or next((each for each, flag in zip(STOPPING, flags, strict=True) if flag), None)

    def _maybe_log_save_evaluate(self, *arguments: Any, **named: Any) -> None:
        if self.stopped_by and self.control.should_evaluate:
            self._evaluation_due, self.control.should_evaluate = True, False
        super()._maybe_log_save_evaluate(*arguments, **named)
        if self.stopped_by:
            self.control.should_training_stop = True
            if self._saved_at != self.state.global_step:
                self._save_checkpoint(self.model_wrapped, None)
                self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        assert self.model is not None
        # Every rank has the same numbers, and decides the same.
        refuse_non_finite(self.model, self.optimizer, step=self.state.global_step)
        mine = ({"now": capture(), "epoch": self._epoch_rng}, self.tokens_seen)
        ranks = [mine] * self.args.world_size
        if self.args.world_size > 1:
            torch.distributed.all_gather_object(ranks, mine)
        if self.is_world_process_zero():
            evaluated = self._latest if self._evaluated_at == self.state.global_step else {}
            metrics = {**self._last_logged(), **evaluated}
            self._commit(self.state.global_step, metrics, functools.partial(self._write_state, ranks))
        # A writer may use the RNG, but the run must continue just as it would resume from here.
        restore(mine[0]["now"])
        self._saved_at = self.state.global_step
        self.accelerator.wait_for_everyone()

    def _write_state(self, ranks: Sequence[tuple[Mapping[str, RngState], int]], folder: Path) -> None:
        assert self.model is not None and self.optimizer is not None and self.lr_scheduler is not None
        write_optimizer(folder, self.optimizer, self.model)
        write_rng(folder, [states for states, _ in ranks])
        ended = self._batches >= self._batches_in_epoch
        progress = Progress(
            epoch=self._epoch + ended,
            batches=0 if ended else self._batches,
            unit=self._unit,
            tokens=[tokens for _, tokens in ranks],
            skipped=self._skipped,
            metrics=self._latest,
            metrics_before=self._before,
            evaluated_at=self._evaluated_at,
            evaluation_due=self._evaluation_due,
            loss_since_log=self._tr_loss.item(),
            loss_before=self._total_loss_scalar,
            logged_at=self._globalstep_last_logged,
            steps_without_loss=self._initial_global_step,
            seconds=self._seconds + time.time() - self._started,
            scheduler=self.lr_scheduler.state_dict(),
            scaler=self.accelerator.scaler and self.accelerator.scaler.state_dict(),
        )
        write_progress(folder, progress, self.state, self.callback_handler.callbacks)

    def _last_logged(self) -> dict[str, float]:
        logged = [entry for entry in self.state.log_history if "loss" in entry]
        return {"loss": logged[-1]["loss"]} if logged else {}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.train_sampler or super()._get_train_sampler(train_dataset)

    def _get_dataloader(self, *arguments: Any, **named: Any) -> Any:
        loader: Any = super()._get_dataloader(*arguments, **named)
        loader.base_dataloader.worker_init_fn = without_signals(loader.worker_init_fn)
        return loader
