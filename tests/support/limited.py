"""A run in a process of its own, whose address space may not grow beyond a limit once training begins.

python -m tests.support.limited FOLDER MEGABYTES
"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from smolora_core import LoRAConfig, SmoLoRA, TrainingConfig, hookimpl
from tests.support.models import WORDS

ROWS = [{"text": " ".join(WORDS[(row + 7 * place) % len(WORDS)] for place in range(100))} for row in range(16)]


class Limit(TrainerCallback):
    """A plugin that sets the limit."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes

    @hookimpl
    def smolora_callbacks(self, run: Any) -> list[TrainerCallback]:
        return [self]

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + self.megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def run(folder: Path, *plugins: Any) -> list[dict[str, Any]]:
    """Train two steps of 8 rows; return what was told of memory."""
    told: list[dict[str, Any]] = []
    SmoLoRA(
        str(folder / "base"),
        ROWS,
        output_dir=str(folder / f"run-{len(plugins)}"),
        lora=LoRAConfig(r=4, dropout=0.0),
        training=TrainingConfig(max_seq_length=128, max_steps=2, per_device_train_batch_size=8, gradient_accumulation_steps=1),
        model={"dtype": "float32", "device": "cpu"},
        plugins=plugins,
        listener=lambda event: told.append(dict(event.values)) if event.kind == "out_of_memory" else None,
    ).train()
    return told


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), Limit(int(sys.argv[2])))))
