"""How long it takes from the shell to the end of the first optimizer step: ours and TRL, in turn.

    python -m tests.benchmarks.startup --rounds 5 --where

Both train the bundled base on the demo's rows, in micro-batches of 16, the same adapter. Ours is `smolora train` on a copy that
is compiled as an installation is; TRL is the shortest script that does as much. Nothing is kept from run to run but what an
installation has: compiled modules, and files that the system holds in memory. Seconds of the clock say what somebody waits;
on a machine that does other things besides, seconds of the processor say more.
"""

import argparse
import json
import os
import pstats
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import smolora_plugins.demo
from smolora_plugins.demo import task

BASE = Path(smolora_plugins.demo.__file__).parent / "base"
BATCH, LENGTH, RATE = 16, 256, 5e-3
WATCH = """
import json, os, time
from transformers import TrainerCallback

class Watch(TrainerCallback):
    def on_step_end(self, *arguments, **more):
        spent = os.times()
        print("FIRST", json.dumps([time.time() - float(os.environ["STARTED"]), spent.user + spent.system]), flush=True)
"""
PLUGIN = """
from smolora_core import hookimpl

@hookimpl
def smolora_callbacks(run):
    from watch import Watch
    return [Watch()]
"""
TRL = f"""
import sys
from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
from watch import Watch

base, rows, folder = sys.argv[1:]
targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
trainer = SFTTrainer(
    model=base,
    args=SFTConfig(output_dir=folder, per_device_train_batch_size={BATCH}, max_steps=1, logging_steps=1, max_length={LENGTH},
                   learning_rate={RATE}, save_strategy="no", report_to="none", use_cpu=True),
    train_dataset=load_dataset("json", data_files=rows, split="train"),
    peft_config=LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=targets, task_type="CAUSAL_LM"),
    callbacks=[Watch()],
)
trainer.train()
"""
STAGES = {
    "imports": ("_bootstrap", "_find_and_load"),
    "command line, config and plugins": ("flags.py", "load_run"),
    "check": ("check.py", "check_run"),
    "rows: fingerprint, read, encode and cache them": ("prepare.py", "prepare_rows"),
    "audit the labels": ("label_audit.py", "audit_labels"),
    "measure number formats": ("device.py", "choose_dtype"),
    "load the weights": ("load.py", "_load"),
    "attach the adapter": ("attach.py", "attach"),
    "try batches without padding": ("padding_free.py", "choose_batching"),
    "find the head": ("head.py", "find_head"),
    "the step itself": ("step.py", "accumulate"),
}


def write_inputs(folder: Path) -> None:
    """Write rows, a config, both scripts, and a compiled copy of the packages."""
    rows = (json.dumps(row, ensure_ascii=False) for row in task.rows("train"))
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    config = {
        "model": {"path": str(BASE), "device": "cpu"},
        "output_dir": str(folder / "ours"),
        "data": {"train": str(folder / "rows.jsonl"), "max_seq_length": LENGTH},
        "lora": {"r": 8, "alpha": 16, "dropout": 0.05},
        "training": {
            "max_steps": 1,
            "logging_steps": 1,
            "learning_rate": RATE,
            "per_device_train_batch_size": BATCH,
            "gradient_accumulation_steps": 1,
        },
    }
    (folder / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    for name, text in {"watch": WATCH, "plugin": PLUGIN, "with_trl": TRL}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    for name in ("smolora_core", "smolora_plugins"):
        shutil.copytree(BASE.parents[2] / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder)], check=True)


def run(way: str, folder: Path, threads: int, interpreter: Sequence[str] = ()) -> tuple[list[float], str]:
    """Start a process; give its seconds of the clock and of the processor until the step's end, and what it wrote to stderr."""
    for left in ("ours", "trl", "cache", "hub"):
        shutil.rmtree(folder / left, ignore_errors=True)
    ours = ["-m", "smolora_core", "train", str(folder / "run.yaml"), "--plugin", str(folder / "plugin.py")]
    trl = [str(folder / "with_trl.py"), str(BASE), str(folder / "rows.jsonl"), str(folder / "trl")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "SMOLORA_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(folder),
        "STARTED": str(time.time()),
    }
    command = [sys.executable, *interpreter, *(ours if way == "ours" else trl)]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    found = re.search(r"FIRST (\[.*?\])", ended.stdout)
    if ended.returncode or not found:
        raise SystemExit(f"{way} failed:\n{ended.stderr}")
    return json.loads(found[1]), ended.stderr


def show_times(found: dict[str, list[list[float]]]) -> None:
    """Print medians, and what share of TRL's ours is."""
    medians = {way: [statistics.median(column) for column in zip(*runs, strict=True)] for way, runs in found.items()}
    print("way    seconds  of the processor")
    for way, (clock, processor) in medians.items():
        print(f"{way:6} {clock:7.2f}  {processor:7.2f}   of {len(found[way])} runs", flush=True)
    if len(medians) == 2:
        clock, processor = (mine / theirs for mine, theirs in zip(medians["ours"], medians["trl"], strict=True))
        print(f"ours is {clock:.2f} of TRL's by the clock, {processor:.2f} by the processor")


def show_imports(folder: Path, threads: int) -> None:
    """Print which packages each way imports, and for how long."""
    for way in ("ours", "trl"):
        _, written = run(way, folder, threads, ("-X", "importtime"))
        seconds: Counter[str] = Counter()
        modules: Counter[str] = Counter()
        for own, name in re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", written, re.MULTILINE):
            package = name.partition(".")[0]
            seconds[package] += int(own) / 1e6
            modules[package] += 1
        print(f"\n{way} imports {sum(modules.values())} modules in {sum(seconds.values()):.2f} s")
        for package, spent in seconds.most_common(15):
            print(f"  {spent:6.2f} s  {modules[package]:5}  {package}")


def show_stages(folder: Path, threads: int) -> None:
    """Print where the time of a run of ours goes, under a profiler, which makes it longer."""
    file = folder / "profile"
    run("ours", folder, threads, ("-m", "cProfile", "-o", str(file)))
    spent: Any = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    print("\nstages of ours, seconds under a profiler; some hold imports")
    for stage, (end, function) in STAGES.items():
        found = [row[3] for (place, _, name), row in spent.items() if name == function and end in place]
        print(f"  {max(found):6.2f} s  {stage}" if found else f"  no call of {function} in {end}: was it renamed?")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each way runs, in alternation, after one that warms up")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", choices=("ours", "trl"), nargs="+", default=["ours", "trl"])
    parser.add_argument("--where", action="store_true", help="say what is imported, and where the time goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        found: dict[str, list[list[float]]] = {way: [] for way in given.ways}
        for turn in range(given.rounds + 1):
            for way in given.ways:
                times, _ = run(way, folder, given.threads)
                if turn:
                    found[way].append(times)
        if given.rounds:
            show_times(found)
        if given.where:
            show_imports(folder, given.threads)
            show_stages(folder, given.threads)


if __name__ == "__main__":
    main()
