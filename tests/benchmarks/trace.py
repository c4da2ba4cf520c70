"""Trace one run: the rooms entered before its first step, and the files that a micro-batch is passed through.

    python -m tests.benchmarks.trace

Trains the bundled base model on the demo's rows for two steps of two micro-batches, and profiles every call of a function of
this project. A file counts as passed if one of its functions takes the micro-batch as an argument, or returns it, between the
end of the first step and the last backward pass of the second.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

import smolora_core
import smolora_plugins.demo
from smolora_core import hookimpl
from smolora_plugins.demo import task

ROOT = Path(smolora_core.__file__).parents[1]
BASE = Path(smolora_plugins.demo.__file__).parent / "base"


class Trace:
    """Records calls in order, as (file, function), in one of three phases."""

    def __init__(self) -> None:
        self.phase = "before"
        self.calls: dict[str, list[tuple[str, str]]] = {"before": [], "micro-batch": [], "after": []}
        self.passed: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, returned: Any) -> None:
        name = frame.f_code.co_filename
        if event not in ("call", "return") or not name.startswith(str(ROOT / "smolora_")):
            return
        call = (str(Path(name).relative_to(ROOT)), frame.f_code.co_name)
        if event == "call":
            self.calls[self.phase].append(call)
        values = frame.f_locals.values() if event == "call" else [returned]
        if self.phase == "micro-batch" and any(map(_is_micro_batch, values)):
            self.passed.append(call)


def _is_micro_batch(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("input_ids"), Tensor)


class Phases(TrainerCallback):
    """Switches the trace's phase."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 0:
            self.trace.phase = "after"

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.trace.phase = "micro-batch" if state.global_step == 1 else "after"

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.trace.phase = "after"


def main() -> None:
    """Trace and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    trace = Trace()

    class Plugin:
        @hookimpl
        def smolora_callbacks(self, run: Any) -> list[TrainerCallback]:
            return [Phases(trace)]

    with tempfile.TemporaryDirectory() as folder:
        values = {
            "model": {"path": str(BASE), "device": "cpu"},
            "output_dir": f"{folder}/run",
            "data": {"train": "rows in memory", "cache": False},
            "training": {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        }
        model, data = values.pop("model"), values.pop("data")
        lora = smolora_core.SmoLoRA(
            model["path"], task.rows("train")[:64], model={"device": "cpu"}, data=data, plugins=[Plugin()], **values
        )
        sys.setprofile(trace)
        try:
            lora.train()
        finally:
            sys.setprofile(None)
    before, passed = trace.calls["before"], list(dict.fromkeys(trace.passed))
    rooms = [file.rpartition("/")[0] for file, _ in before]
    changes = sum(one != other for one, other in pairwise(rooms))
    print(f"before the first step: {len(set(rooms))} rooms in this order: {', '.join(dict.fromkeys(rooms))}")
    print(f"  {len({file for file, _ in before})} files, {len(set(before))} functions, {changes} changes of room")
    files = list(dict.fromkeys(file for file, _ in passed))
    print(f"a micro-batch passes {len(files)} files, {len(passed)} functions:")
    for file in files:
        print(f"  {file}: {', '.join(name for each, name in passed if each == file)}")


if __name__ == "__main__":
    main()
