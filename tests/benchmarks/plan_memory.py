"""Peak memory as `smolora plan` predicts it, beside what a run of three steps takes on a processor.

Every configuration is planned and run in a process of its own; what the run took is the most that its resident memory was:

    python tests/benchmarks/plan_memory.py runs/plan-memory
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

_MB = 2**20
_ROWS = 32
_WITHIN, _UNDER = 0.15, 0.10


@attrs.frozen
class Case:
    """A configuration, and what a run of it needs that may be missing."""

    shape: str
    dtype: str
    batch: int
    length: int
    loss: str = "cross-entropy"
    memory: Any = "none"
    needs: str | None = None

    @property
    def title(self) -> str:
        memory = "" if self.memory == "none" else " ".join(str(value) for value in self.memory[0].values())
        return f"{self.shape:<6}{self.dtype:<10}{self.batch:>2} x {self.length:<5}{self.loss:<14}{memory:<30}"


def _llama(hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int) -> dict[str, Any]:
    shape = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary}
    return {**shape, "num_attention_heads": heads, "num_key_value_heads": groups}


SHAPES = {
    "135M": _llama(576, 1536, 30, 9, 3, 49152),
    "41M": _llama(512, 1408, 8, 8, 8, 32000),
    "9M": _llama(256, 688, 6, 4, 2, 16384),
    "gpt2": {"n_embd": 512, "n_layer": 8, "n_head": 8, "vocab_size": 32000, "n_positions": 1024},
}
CHECKPOINTING = "activation-checkpointing"
CASES = (
    Case("135M", "bfloat16", 1, 128),
    Case("135M", "bfloat16", 4, 256),
    Case("135M", "bfloat16", 8, 128, "focal"),
    Case("135M", "bfloat16", 1, 1024),
    Case("135M", "float32", 2, 256),
    Case("135M", "bfloat16", 4, 512, memory=[{"name": CHECKPOINTING, "every_n_layers": 1}]),
    Case("135M", "bfloat16", 2, 512, memory=[{"name": CHECKPOINTING, "every_n_layers": 2}]),
    Case("135M", "float32", 2, 256, "focal", memory=[{"name": CHECKPOINTING, "every_n_layers": 1}]),
    Case("41M", "bfloat16", 4, 512),
    Case("41M", "float32", 8, 128),
    Case("41M", "float32", 1, 1024, "focal"),
    Case("9M", "bfloat16", 8, 512),
    Case("9M", "float32", 1, 128),
    Case("gpt2", "float32", 4, 256),
    Case("135M", "bfloat16", 4, 256, memory=[{"name": "quantised", "format": "nf4"}], needs="bitsandbytes"),
)


def save_model(folder: Path, shape: dict[str, Any]) -> None:
    """Save random weights in bfloat16, as most models are published."""
    import torch
    import transformers

    from tests.support.models import save_tokenizer

    special = {"bos_token_id": 0, "eos_token_id": 1}
    if "n_embd" in shape:
        config: Any = transformers.GPT2Config(**shape, **special)
    else:
        config = transformers.LlamaConfig(**shape, **special, max_position_embeddings=2048, tie_word_embeddings=True)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)


def write_run(folder: Path, case: Case) -> Path:
    """Write rows of one length and the config of a run of three steps."""
    folder.mkdir(parents=True, exist_ok=True)
    # Long enough to be cut at the length that is planned for.
    rows = [{"prompt": f"row {row}", "completion": " the film was not bad" * case.length} for row in range(_ROWS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"path": str(folder.parent / case.shape), "dtype": case.dtype, "device": "cpu"},
        "data": {"train": str(folder / "rows.jsonl"), "max_seq_length": case.length, "num_proc": 1},
        "output_dir": str(folder / "run"),
        "training": {"max_steps": 3, "per_device_train_batch_size": case.batch, "gradient_accumulation_steps": 1},
        "loss": case.loss,
        "memory": case.memory,
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(config))
    return path


def run(command: str, config: Path, *more: str) -> tuple[str, int]:
    """Give what a command prints, and the peak of its resident memory in bytes."""
    with (config.parent / f"{command}.out").open("w+") as out:
        started = [sys.executable, "-m", "smolora_core", command, str(config), *more]
        process = subprocess.Popen(started, stdout=out, stderr=sys.stderr)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command} {config} failed")
        out.seek(0)
        return out.read(), used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of configurations, from 1")
    options = parser.parse_args()
    for name, shape in SHAPES.items():
        if not (options.folder / name).exists():
            save_model(options.folder / name, shape)
    print(f"{'':<4}{'shape dtype      rows       loss          memory':<67}{'measured':>9}{'predicted':>10}{'off':>7}")
    off = []
    for number, case in enumerate(CASES, start=1):
        if options.only and number not in options.only:
            continue
        if case.needs and find_spec(case.needs) is None:
            print(f"{number:<4}{case.title} skipped: {case.needs} is not installed")
            continue
        config = write_run(options.folder / f"case-{number}", case)
        predicted = json.loads(run("plan", config, "--json")[0])["peak"]
        _, measured = run("train", config)
        off.append(predicted / measured - 1)
        print(f"{number:<4}{case.title}{measured / _MB:>9.0f}{predicted / _MB:>10.0f}{off[-1]:>+7.1%}", flush=True)
    close = sum(abs(each) <= _WITHIN for each in off)
    print(f"{close} of {len(off)} within {_WITHIN:.0%}; {sum(each < -_UNDER for each in off)} more than {_UNDER:.0%} under")


if __name__ == "__main__":
    main()
