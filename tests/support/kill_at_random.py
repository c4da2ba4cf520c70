"""Kill a training run at random times, over and over, and see that it always goes on from what it had committed.

    python -m tests.support.kill_at_random MODEL ROWS FOLDER [--kills 500] [--seed 0]

Each run saves after every step and is a fork of one process that has everything imported, so that most of its life is
training. What a run has acknowledged are the checkpoints that its events tell of.
"""

import argparse
import faulthandler
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import transformers
from tqdm.auto import tqdm as transformers_bar

import smolora_core
from smolora_core.checkpoints.lock import run_id_of
from smolora_core.checkpoints.store import Store
from smolora_core.plugins import PluginManager
from smolora_core.report.events import read_events
from tests.support.runs import config_of

LONGEST = 0.2
"""Seconds that a run lives at most, counted from an event."""
PATIENCE = 120
"""Seconds within which that event comes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    # Here, so that no fork does it again.
    for module in ("smolora_core.run.execute", "transformers.models.llama.modeling_llama"):
        importlib.import_module(module)
    PluginManager.create()
    transformers.AutoModelForCausalLM.from_pretrained(given.model)
    config = config_of(
        *(given.model, given.rows, given.folder),
        training={"max_steps": 1_000_000, "gradient_accumulation_steps": 1, "eval_steps": 500_000},
        checkpoints={"save_steps": 1},
        # What takes longest before the first step has nothing to do with checkpoints.
        data={"eval": None, "cache": False},
    )
    draw = random.Random(given.seed)
    acknowledged, lost, begun = 0, list[str](), time.monotonic()
    for kill in range(given.kills):
        process = start(config, given.folder.with_name("output.txt"))
        # Some die while they are set up, most of them while they train.
        awaited, seen = draw.choice(["", '"event": "targets"', *2 * ['"event": "checkpoint"']]), content(given.folder)
        lifetime, until, given_up = draw.uniform(0, LONGEST), float("inf"), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if until == float("inf") and news(given.folder, seen, awaited):
                until = time.monotonic() + lifetime
            elif until == float("inf") and time.monotonic() > given_up:
                os.kill(process, signal.SIGABRT)
            if os.waitpid(process, os.WNOHANG) != (0, 0):
                sys.exit(f"run {kill} ended by itself:\n{given.folder.with_name('output.txt').read_text()[-3000:]}")
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        happened = read_events(given.folder / "events.jsonl")
        steps = [event.values["step"] for event in happened if event.kind == "checkpoint"]
        acknowledged = max([acknowledged, *steps])
        newest = Store(folder=given.folder, run_id=run_id_of(given.folder)).newest_valid().committed
        if acknowledged and (newest is None or newest.manifest.step < acknowledged):
            lost.append(f"kill {kill}: step {acknowledged} was acknowledged, and {newest} is there")
    Store(folder=given.folder, run_id=run_id_of(given.folder)).recover()
    left = [path.name for path in given.folder.iterdir() if path.name.startswith(".")]
    happened = read_events(given.folder / "events.jsonl")
    result = {
        "kills": given.kills,
        "resumes": sum(event.kind == "resumed" for event in happened),
        "step": acknowledged,
        "lost": lost,
        "left": left,
        "begun anew": len(list(given.folder.glob("previous-*"))),
        "seconds": round(time.monotonic() - begun),
    }
    print(json.dumps(result))


def start(config: dict[str, object], output: Path) -> int:
    """Fork a run that goes on from what there is."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            with output.open("w") as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
                # A process that gets stuck says where.
                faulthandler.enable()
                # A lock of progress bars is one for all forks, and would stay taken when one is killed with it.
                for kind in (each for each in transformers_bar.__mro__ if hasattr(each, "set_lock")):
                    kind.set_lock(threading.RLock())
                smolora_core.train(config, resume="auto")
                status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def content(folder: Path) -> str:
    events = folder / "events.jsonl"
    return events.read_text(encoding="utf-8") if events.exists() else ""


def news(folder: Path, seen: str, awaited: str) -> bool:
    """Whether an event that is awaited has been written since."""
    now = content(folder)
    return awaited in now.removeprefix(seen) and now != seen


if __name__ == "__main__":
    main()
