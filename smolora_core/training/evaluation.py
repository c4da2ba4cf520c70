"""Evaluate a model: every held-out row counts once, for any batch size and any number of processes."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from smolora_core.model.device import in_mode
from smolora_core.training.loaders import Collate, make_loader
from smolora_core.training.signals import Stop
from smolora_core.training.step import Step

ComputeMetrics = Callable[[Tensor, Tensor], Mapping[str, float]]
"""Computes metrics from what the objective observed in an evaluation, `[n, k]`, and the row numbers, `[n]`."""


def held_out_sets(rows: Any) -> Mapping[str, Any]:
    """Return held-out sets by name; a single one has none."""
    return rows if isinstance(rows, Mapping) else {"": rows}


@attrs.frozen
class Evaluation:
    """Evaluates the model of a step.

    Attributes:
        step: the step whose objective is computed, and whose recovery splits batches that do not fit in memory.
        collate: makes padded batches.
        metrics: computes the task's metrics; None if it has none.
        progress: gets the number of batches done and their total.
    """

    step: Step
    collate: Collate
    metrics: ComputeMetrics | None
    progress: Callable[[int, int], object]

    def run(self, sets: Mapping[str, Any], after: int, stop: Stop) -> dict[str, float] | None:
        """Return the metrics of each named set, and those of the first one without its name, the same on all ranks.

        Args:
            sets: the held-out rows by name.
            after: the number of steps taken.
            stop: ends the evaluation early.

        Returns:
            `eval_loss`, the mean over all supervised targets, NaN if there are none or they weigh nothing, and the task's
            metrics; None if the evaluation ended early.
        """
        metrics: dict[str, float] = {}
        with in_mode(self.step.model, training=False):
            self.step.set_mode(training=False)
            for name, rows in sets.items():
                found = self._measure(rows, after, stop)
                if found is None:
                    return None
                metrics |= {f"eval_{key}": value for key, value in found.items() if not metrics}
                metrics |= {f"eval_{name}_{key}": value for key, value in found.items() if name}
        return metrics

    def _measure(self, rows: Any, after: int, stop: Stop) -> dict[str, float] | None:
        step, arguments, ranks = self.step, self.step.arguments, self.step.ranks
        mine, size = range(ranks.rank, len(rows), ranks.size), arguments.per_device_eval_batch_size
        batches = [mine[start : start + size] for start in range(0, len(mine), size)]
        sums = torch.zeros(3, device=arguments.device)
        seen = list[tuple[Tensor, Tensor]]()
        with torch.no_grad():
            for done, batch in enumerate(make_loader(rows, batches, self.collate, arguments)):
                if stop.caught.first is not None:
                    break
                measured = step.compute(step.measure, batch, f"evaluating after step {after}", after)
                sums[:2] += torch.stack([measured.sum, measured.weight])
                if measured.observed is not None and measured.rows is not None:
                    seen.append((measured.observed.cpu(), torch.tensor(batches[done])[measured.rows.cpu()]))
                self.progress(done + 1, len(batches))
        totals = step.totals(sums, stop.flags)
        found = [pair for rank in ranks.gather(seen) for pair in rank]
        if stop.agree(totals.flags):
            return None
        # A loss of 0 would be the best there is.
        loss = totals.loss if totals.weight else math.nan
        if self.metrics is None or not found:
            return {"loss": loss}
        observed, numbers = (torch.cat(each) for each in zip(*found, strict=True))
        return {"loss": loss, **self.metrics(observed, numbers)}
