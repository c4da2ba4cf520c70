"""How fast rows become tokens, and in how much memory: ours and plain `datasets.map`, in turn, with the same tokenizer.

    python tests/benchmarks/prepare_rows.py --rows 1000000 --tokenizer FOLDER

Each way runs in a process tree of its own. Memory is the resident memory of the whole tree, sampled; pages that forked
processes share count for each of them, so a figure is never too small.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WAYS = ("plain", "one process", "auto", "again", "streamed")
WORDS = Path(__file__).with_name("prepare_rows.py").read_text(encoding="utf-8").split()


def write_rows(file: Path, rows: int) -> None:
    """Write rows of 10 to 50 words, no two alike."""
    rng = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            text = " ".join(rng.choices(WORDS, k=rng.randrange(10, 50)))
            stream.write(json.dumps({"id": number, "text": f"{number} {text}"}) + "\n")


def plain(file: Path, tokenizer: str) -> int:
    """Tokenise as a careful user of `datasets` would."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenize = AutoTokenizer.from_pretrained(tokenizer)
    rows = load_dataset("json", data_files=str(file), split="train")
    rows = rows.map(lambda batch: tokenize(batch["text"]), batched=True, remove_columns=rows.column_names)
    return len(rows)


def ours(file: Path, tokenizer: str, way: str) -> int:
    """Prepare the rows as a run does, from the fingerprint to the last one."""
    from transformers import AutoTokenizer

    from smolora_core.config import resolve
    from smolora_core.config.document import Document
    from smolora_core.data.prepare import prepare_splits, recipe_for
    from smolora_core.plugins import PluginManager
    from smolora_core.plugins.selection import choose_components

    section = {
        "train": str(file),
        "num_proc": 1 if way == "one process" else "auto",
        "cache": way in ("auto", "again"),
        "streaming": way == "streamed",
    }
    resolved = resolve(Document({"model": tokenizer, "task": "causal-lm", "data": section}, {"": "benchmark"}))
    choices = choose_components(resolved, PluginManager.create().registry, ())
    recipe = recipe_for(resolved, choices, AutoTokenizer.from_pretrained(tokenizer), None)
    train = prepare_splits(resolved, choices, recipe, None, lambda kind, **values: None).train.dataset
    return sum(1 for _ in train) if way == "streamed" else len(train)


def measure(way: str, file: Path, tokenizer: str, folder: Path) -> dict[str, float]:
    """Run one way in a process of its own and watch its memory."""
    import psutil

    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "SMOLORA_CACHE": str(folder / "smolora"),
        "TMPDIR": str(folder),
    }
    command = [sys.executable, __file__, "--way", way, "--file", str(file), "--tokenizer", tokenizer]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while child.poll() is None:
            try:
                root = psutil.Process(child.pid)
                peak = max(peak, sum(each.memory_info().rss for each in (root, *root.children(recursive=True))))
            except psutil.Error:
                pass
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = child.communicate()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"{way}: exit {child.returncode}")
    return {**json.loads(output.splitlines()[-1]), "peak": peak}


def main() -> None:
    """Print a table, or measure one way where the parent says so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tokenizer", default=str(Path(__file__).parents[2] / "smolora_plugins" / "demo" / "base"))
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.way:
        # Both ways import all they need before the clock starts.
        import datasets
        import transformers  # noqa: F401

        import smolora_core.data.prepare  # noqa: F401

        datasets.disable_progress_bars()
        start = time.perf_counter()
        rows = plain(given.file, given.tokenizer) if given.way == "plain" else ours(given.file, given.tokenizer, given.way)
        print(json.dumps({"rows": rows, "seconds": time.perf_counter() - start}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", given.rows)
        print(f"{given.rows:,} rows, {(folder / 'rows.jsonl').stat().st_size / 1e6:,.0f} MB, {os.cpu_count()} processors")
        found = {way: measure(way, folder / "rows.jsonl", given.tokenizer, folder) for way in WAYS}
        rival = found["plain"]["rows"] / found["plain"]["seconds"]
        print(f"{'':12} {'rows/s':>9} {'of plain':>9} {'seconds':>8} {'peak GB':>8}")
        for way, figures in found.items():
            rate = figures["rows"] / figures["seconds"]
            print(f"{way:12} {rate:9,.0f} {rate / rival:9.2f} {figures['seconds']:8.1f} {figures['peak'] / 1e9:8.2f}")


if __name__ == "__main__":
    main()
