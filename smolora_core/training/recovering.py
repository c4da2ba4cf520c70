"""Survive running out of memory in a micro-batch; if nothing helps, save the last finished step."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from smolora_core.checkpoints.rng import restore
from smolora_core.errors import TrainingError
from smolora_core.plugins.loading import describe_whole
from smolora_core.training.objective import Measured
from smolora_core.training.oom import Recovery, isolated_gradients, rng_states, set_rng_states
from smolora_core.training.resuming import ResumableTrainer


class RecoveringTrainer(ResumableTrainer):
    """A trainer that computes a micro-batch in parts if it does not fit in memory.

    Parts draw different random numbers than the whole micro-batch, so dropout differs. With several ranks nothing is
    recomputed: they exchange gradients once, in the last backward pass of a step.
    """

    def __init__(self, *, recovery: Recovery | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._recovery = recovery or Recovery()
        self._first_of_step, self._step_ended = 0, True
        self._tokens_before, self._rng_before = self._tokens, rng_states(self.args.device)

    def _measure(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        raise NotImplementedError

    def _learn(self, model: nn.Module, batch: Mapping[str, Any]) -> Measured:
        """Add the gradient of a micro-batch to that of its step."""
        if self._step_ended:
            self._first_of_step, self._step_ended = self._batches, False
            self._tokens_before, self._rng_before = self._tokens.clone(), rng_states(self.args.device)
        alone = self.args.world_size == 1
        work = partial(self._add_at_once if alone else self._add, model)
        return self._in_memory(work, batch, "at", self.state.global_step + 1, splits=alone)

    def _watch(self, model: nn.Module, batch: Mapping[str, Any]) -> Measured:
        """Measure a micro-batch of an evaluation."""
        return self._in_memory(partial(self._measure, model), batch, "evaluating after", self.state.global_step)

    def _add(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        measured = self._measure(model, batch)
        self.accelerator.backward(measured.sum)
        return Measured(measured.sum.detach(), measured.weight)

    def _add_at_once(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Measured:
        assert self.optimizer is not None
        with isolated_gradients(each for group in self.optimizer.param_groups for each in group["params"]):
            return self._add(model, batch)

    def _in_memory(self, work: Any, batch: Mapping[str, Any], when: str, step: int, *, splits: bool = True) -> Measured:
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
            error.add_note(f"then saving the last step raised {describe_whole(late)}")
