"""Evaluate a model: every held-out row counts once, for any batch size and any number of processes."""

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from smolora_core.training.loaders import Collate, make_loader
from smolora_core.training.step import Step, Totals, call

ComputeMetrics = Callable[[Tensor, Tensor], Mapping[str, float]]
"""Computes metrics from what the objective observed in an evaluation, `[n, k]`, and the row numbers, `[n]`."""


@attrs.frozen(kw_only=True)
class Evaluation:
    """Evaluates the model of a step.

    Attributes:
        step: the step whose objective is computed, and whose recovery splits batches that do not fit in memory.
        collate: makes padded batches.
        metrics: computes the task's metrics; None if it has none.
        stops: whether to end early, asked before every batch.
        flags: numbers that ranks exchange at the end.
        progress: gets the number of batches done and their total.
    """

    step: Step
    collate: Collate
    metrics: ComputeMetrics | None
    stops: Callable[[], bool]
    flags: Callable[[], list[float]]
    progress: Callable[[int, int], object]

    def run(self, rows: Any, after: int) -> tuple[dict[str, float], Totals]:
        """Return the mean loss over all supervised targets and the task's metrics, the same on all ranks.

        Args:
            rows: the held-out rows.
            after: the number of steps taken.
        """
        step, model = self.step, self.step.model
        arguments, ranks, training = step.arguments, step.ranks, model.training
        mine, size = range(ranks.rank, len(rows), ranks.size), arguments.per_device_eval_batch_size
        batches = [mine[start : start + size] for start in range(0, len(mine), size)]
        sums = torch.zeros(3, device=arguments.device)
        seen = list[tuple[Tensor, Tensor]]()
        model.eval()
        call(step.optimizer, "eval")
        with torch.no_grad():
            for done, batch in enumerate(make_loader(rows, batches, self.collate, arguments)):
                if self.stops():
                    break
                measured = step.recovery.measure(batch, step.measure, f"evaluating after step {after}", after)
                sums[:2] += torch.stack([measured.sum, measured.weight])
                if measured.observed is not None and measured.rows is not None:
                    seen.append((measured.observed.cpu(), torch.tensor(batches[done])[measured.rows.cpu()]))
                self.progress(done + 1, len(batches))
        model.train(training)
        totals = step.totals(sums, self.flags)
        return {"loss": totals.loss, **self._metrics(seen)}, totals

    def _metrics(self, seen: list[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        found = [pair for rank in self.step.ranks.gather(seen) for pair in rank]
        if self.metrics is None or not found or self.stops():
            return {}
        observed, rows = (torch.cat(each) for each in zip(*found, strict=True))
        return self.metrics(observed, rows)
