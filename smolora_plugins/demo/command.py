"""`smolora demo`: fine-tune the bundled base model in about a minute, offline."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from smolora_plugins.demo import task

_BASE = Path(__file__).parent / "base"
_LONGEST_ANSWER = 60
_SHOWN = 2


def demo(
    *,
    rows: Annotated[bool, Parameter(negative="", help="Print sample rows and exit.")] = False,
    output_dir: Annotated[Path, Parameter(help="The output folder.")] = Path("smolora-demo"),
    seed: Annotated[int, Parameter(help="The random seed.")] = 42,
) -> None:
    """Fine-tune the bundled model and compare its answers: offline, on any machine, in about a minute."""
    if rows:
        _print_rows()
        return
    from smolora_core import load, train
    from smolora_core.report import Terminal

    held_out = task.rows("eval")
    prompts = [row["prompt"] for row in held_out]

    with Terminal() as terminal:
        terminal.line("demo", "fine-tunes a bundled model to answer in JSON instead of prose; nothing is downloaded")
        terminal.status("answering before training")
        before = load(_BASE).generate_all(prompts, max_new_tokens=_LONGEST_ANSWER)
        outcome = train(_config(output_dir, seed), listener=terminal)
        assert outcome.adapter is not None
        terminal.status("answering after training")
        after = load(outcome.adapter).generate_all(prompts, max_new_tokens=_LONGEST_ANSWER)
        correct = [
            sum(text == row["completion"] for text, row in zip(texts, held_out, strict=True)) for texts in (before, after)
        ]
        counts = f"{correct[0]} / {len(held_out)} before  →  {correct[1]} / {len(held_out)} after"
        terminal.line("answers", f"held-out exact match  {counts}")
        for prompt, was, now in list(zip(prompts, before, after, strict=True))[:_SHOWN]:
            terminal.line("", "")
            terminal.line("prompt", prompt.strip())
            terminal.line("before", was.strip().partition("\n")[0])
            terminal.line("after", now.strip())
        terminal.line("", "")
        if (page := outcome.adapter.with_name("report.html")).exists():
            terminal.line("report", str(page))
        terminal.line("next", f"smolora generate {outcome.adapter} {shlex.quote(prompts[_SHOWN])}")
        terminal.line("", "smolora demo --rows")
        terminal.line("", f"smolora train {output_dir / 'run.yaml'} --lora.r 16 --output_dir {output_dir}-16")


def _config(output_dir: Path, seed: int) -> dict[str, Any]:
    """Write the rows to files that the user can inspect, and return a config that trains on them."""
    output_dir.mkdir(parents=True, exist_ok=True)
    files = {split: output_dir / f"{split}.jsonl" for split in ("train", "eval")}
    for split, file in files.items():
        lines = (json.dumps(row, ensure_ascii=False) for row in task.rows("train" if split == "train" else "eval"))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "model": str(_BASE),
        "output_dir": str(output_dir),
        "seed": seed,
        "data": {"train": str(files["train"]), "eval": str(files["eval"]), "max_seq_length": 256},
        "lora": {"r": 8, "alpha": 16, "dropout": 0.05},
        "training": {
            "learning_rate": 5e-3,
            "max_steps": 160,
            "per_device_train_batch_size": 16,
            "per_device_eval_batch_size": 64,
            "gradient_accumulation_steps": 1,
        },
    }


def _print_rows() -> None:
    for split in ("train", "eval"):
        found = task.rows("train" if split == "train" else "eval")
        print(f"{split}: {len(found)} rows; the first {_SHOWN}:")
        for row in found[:_SHOWN]:
            print(f"  prompt      {row['prompt'].strip()}\n  completion  {row['completion'].strip()}")
