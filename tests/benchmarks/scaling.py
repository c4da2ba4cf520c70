"""How the time of a token and the memory of a run grow with rows, tokens of a row, and the size of the model.

    python -m tests.benchmarks.scaling                  # all of it
    python -m tests.benchmarks.scaling --only rows --counts 1000 10000 100000

Each run is `smolora_core.train` in a process of its own, on random words and a random Llama. What is fitted is y = a * x ** b,
by least squares on logarithms; b is printed: 0 is flat, 1 is proportional. Seconds are the processor's, and of a token the
median over steps, so that other work on the machine counts little. Anonymous memory (of Linux) is what a process holds for
itself; resident memory counts pages of the rows' file too, which the system takes back whenever somebody else wants them.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

SEED, BATCH, STEPS, WARM_UP = 42, 16, 60, 10
WORDS = ("the", "film", "was", "good", "bad", "long", "short", "and", "we", "liked", "it", "not", "at", "all", "cat", "mat")
SHAPES = ((64, 2), (128, 2), (256, 4), (384, 6))
LENGTHS = (64, 128, 256, 512, 1024)


def write_rows(file: Path, count: int, words: int) -> Path:
    """Write rows of about as many tokens as words, which differ."""
    rng = random.Random(SEED)
    with file.open("w", encoding="utf-8") as stream:
        for number in range(count):
            text = " ".join(rng.choices(WORDS, k=rng.randint(words // 2, words + words // 2)))
            stream.write(json.dumps({"text": f"{number} {text}"}) + "\n")
    return file


def write_model(folder: Path, hidden: int, layers: int) -> tuple[Path, int]:
    """Save a random model, and count its parameters but for the embeddings."""
    from tests.support.models import save_llama

    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_hidden_layers": layers}
    save_llama(folder, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048, **shape)
    return folder, layers * (4 * hidden**2 + 3 * 3 * hidden**2)


class Memory(threading.Thread):
    """Looks at the memory of this process again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = {"RssAnon": 0.0, "VmRSS": 0.0}

    def run(self) -> None:
        while True:
            self.look()
            time.sleep(0.02)

    def look(self) -> dict[str, float]:
        """Give mebibytes by name, now."""
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        now = {name: int(line.split()[1]) / 1024 for name in self.most for line in lines if line.startswith(f"{name}:")}
        self.most = {name: max(most, now[name]) for name, most in self.most.items()}
        return now


def child(model: str, rows: str, folder: str, length: int, steps: int, batch: int) -> None:
    """Train so many steps, or a whole epoch where they are 0, and print figures as the last line."""
    import transformers

    import smolora_core.run.execute

    memory, ends, marks = Memory(), [], {"start": time.process_time()}

    class Watch(transformers.TrainerCallback):
        def on_train_begin(self, *arguments: Any, **more: Any) -> None:
            marks.update(memory.look(), peak=memory.most["RssAnon"])
            memory.most = dict.fromkeys(memory.most, 0.0)

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            ends.append(time.process_time())

    class Plugin:
        @smolora_core.hookimpl
        def smolora_callbacks(self, run: Any) -> list[Any]:
            return [Watch()]

    def listen(event: Any) -> None:
        if event.kind == "data":
            marks.update(
                prepared=time.process_time(), rows=event.values["train"]["kept"], tokens=event.values["train"]["tokens"]
            )

    config = {
        "model": {"path": model, "device": "cpu", "dtype": "float32"},
        "output_dir": folder,
        "seed": SEED,
        "data": {"train": rows, "max_seq_length": length, "num_proc": 1},
        "training": {
            **({"max_steps": steps} if steps else {"num_train_epochs": 1}),
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": 1,
        },
        "checkpoints": {"save_steps": 10**9},
    }
    memory.start()
    smolora_core.train(config, plugins=[Plugin()], listener=listen)  # type: ignore[attr-defined]
    took = [after - before for before, after in pairwise(ends[WARM_UP:])]
    tokens = marks["tokens"] / marks["rows"] * batch
    found = {
        "prepare": 1e6 * (marks["prepared"] - marks["start"]) / marks["rows"],
        "median": 1e6 * statistics.median(took) / tokens,
        "mean": 1e6 * statistics.mean(took) / tokens,
        "before": marks["peak"],
        "anonymous": memory.most["RssAnon"],
        "resident": memory.most["VmRSS"],
    }
    print(json.dumps(found))


def measure(model: Path, rows: Path, length: int, rounds: int, *, steps: int = STEPS, batch: int = BATCH) -> dict[str, float]:
    """Run a process or more; give the least of each figure, times in microseconds and memory in MiB."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            arguments = [str(model), str(rows), f"{name}/run", str(length), str(steps), str(batch)]
            quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "SMOLORA_CACHE": f"{name}/cache"}
            command = [sys.executable, "-m", "tests.benchmarks.scaling", "--child", *arguments]
            ended = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"failed:\n{ended.stderr}")
        found.append(json.loads(ended.stdout.splitlines()[-1]))
    return {name: min(each[name] for each in found) for name in found[0]}


def show(title: str, unit: str, found: dict[int, dict[str, float]]) -> None:
    """Print a table, how far the figures are apart, and their exponents."""
    print(f"\n{title}\n{unit:>12}  us/row prepared  us/token median    mean  MiB anonymous: prepared  training  resident")
    for size, each in found.items():
        print(
            f"{size:12,}  {each['prepare']:15.0f}  {each['median']:15.1f}  {each['mean']:6.1f}"
            f"  {each['before']:23.0f}  {each['anonymous']:8.0f}  {each['resident']:8.0f}",
            flush=True,
        )
    for name in ("prepare", "median", "mean", "before", "anonymous", "resident"):
        values = [each[name] for each in found.values()]
        print(f"  {name:9}  exponent {exponent(list(found), values):+.3f}   most / least {max(values) / min(values):.3f}")


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit y = a * x ** b, and give b."""
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, values))).slope


def by_rows(folder: Path, counts: Sequence[int], rounds: int) -> None:
    """The same number of steps on more and more rows."""
    model, _ = write_model(folder / "model", *SHAPES[0])
    files = {count: write_rows(folder / f"{count}.jsonl", count, 40) for count in counts}
    found = {count: measure(model, file, 128, rounds) for count, file in files.items()}
    show(f"{STEPS} steps of {BATCH} rows", "rows", found)


def by_epoch(folder: Path, counts: Sequence[int], rounds: int) -> None:
    """A whole epoch of few rows and of more."""
    model, _ = write_model(folder / "model", *SHAPES[0])
    files = {count: write_rows(folder / f"{count}.jsonl", count, 16) for count in sorted(counts)[:2]}
    show("a whole epoch", "rows", {count: measure(model, file, 128, rounds, steps=0) for count, file in files.items()})


def by_tokens(folder: Path, counts: Sequence[int], rounds: int) -> None:
    """Rows of more and more tokens, all of one length."""
    model, _ = write_model(folder / "model", *SHAPES[1])
    found = {}
    for length in LENGTHS:
        rows = write_rows(folder / f"{length}.jsonl", 200, 2 * length)
        found[length] = measure(model, rows, length, rounds, steps=30, batch=2)
    show("rows of one length", "tokens", found)


def by_model(folder: Path, counts: Sequence[int], rounds: int) -> None:
    """Models of more and more parameters."""
    rows = write_rows(folder / "rows.jsonl", 1000, 40)
    found = {}
    for hidden, layers in SHAPES:
        model, parameters = write_model(folder / f"{hidden}", hidden, layers)
        found[parameters] = measure(model, rows, 128, rounds, steps=30)
    show("models of layers of parameters", "parameters", found)


SERIES = {"rows": by_rows, "epoch": by_epoch, "tokens": by_tokens, "model": by_model}


def main() -> None:
    """Print a table for each series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SERIES, nargs="+", default=list(SERIES))
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], help="numbers of rows")
    parser.add_argument("--rounds", type=int, default=1, help="times each is measured; the least of a figure counts")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        model, rows, folder, *numbers = given.child
        child(model, rows, folder, *map(int, numbers))
        return
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            SERIES[name](Path(folder), given.counts, given.rounds)


if __name__ == "__main__":
    main()
