"""A part of a run on any number of ranks: `torchrun -m tests.support.changing_ranks BASE FOLDER FROM UNTIL`."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.support.resumed import LENGTHS, disturb, make
from tests.support.small_run import batch, rows

ROWS_PER_STEP = 8


class Rows(TrainerCallback):
    """Keeps the rows of this rank's micro-batches by step, and the loss of all ranks."""

    def __init__(self) -> None:
        self.rows: dict[int, list[int]] = {}
        self.losses: dict[int, float] = {}
        self._step: list[int] = []

    def collate(self, of: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self._step += [round((row["weight"] - 0.5) * 4) for row in of]
        return batch(of)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.rows[state.global_step], self._step = self._step, []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if "loss" in logs:
            self.losses[state.global_step] = logs["loss"]


def part(base: Path, folder: Path, first: int, last: int) -> Rows:
    """Train from the checkpoint of step `first`, or from scratch, to step `last`, as one rank of however many there are."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    kept = Rows()
    made = make(
        base,
        folder,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=ROWS_PER_STEP // 2 // ranks,
        max_steps=last,
        logging_steps=1,
        held_out=(),
        extra={"lr_scheduler_type": "constant"},
    )
    made.data_collator = kept.collate
    made.add_callback(kept)
    disturb()
    made.train(resume_from=folder / f"checkpoint-{first}" if first else None)
    return kept


def main(base: Path, folder: Path, first: int, last: int) -> None:
    torch.distributed.init_process_group("gloo")
    kept = part(base, folder, first, last)
    result = {"rows": kept.rows, "losses": kept.losses}
    (folder / f"{first}-{torch.distributed.get_rank()}.json").write_text(json.dumps(result), encoding="utf-8")
    torch.distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    assert len(LENGTHS) == len(rows(LENGTHS))
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
