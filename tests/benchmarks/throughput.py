"""How many real tokens a second train, and in how much memory: ours, TRL and a plain Trainer on the same rows, in turn.

    python -m tests.benchmarks.throughput --job A --steps 8 --data FOLDER --tokenizer FOLDER

FOLDER of the data holds gsm8k/train.jsonl and alpaca_en/alpaca_en.json as their authors publish them. The model is random, of
the shape of SmolLM2-135M (jobs A and C) or Qwen2.5-0.5B (job B). Each way runs in a process of its own, over the same encoded
rows, with the same adapter and optimizer. The first step warms up and is not counted. The floor is what the matrix products
that nobody can avoid take alone, in bfloat16: those of the frozen weights, forward and for the input's gradient, and the head's
for supervised tokens.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

Rows = list[dict[str, Any]]

SEED, LENGTH, COUNT, RATE = 42, 512, 256, 2e-4
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@attrs.frozen(kw_only=True)
class Job:
    """What is trained on what.

    Attributes:
        rows: folder of the data.
        batch: rows of a micro-batch, which is an optimizer step.
        shape: of the Llama.
    """

    rows: str
    batch: int
    shape: dict[str, int]


SMALL = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 50304,
}
WIDE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
JOBS = {
    "A": Job(rows="gsm8k", batch=8, shape=SMALL),
    "B": Job(rows="gsm8k", batch=4, shape=WIDE),
    "C": Job(rows="alpaca_en", batch=8, shape=SMALL),
}


def read_pairs(data: Path, name: str) -> list[tuple[str, str]]:
    """Read prompts and completions."""
    if name == "gsm8k":
        lines = (data / name / "train.jsonl").read_text(encoding="utf-8").splitlines()
        return [(f"{row['question']}\n", row["answer"]) for row in map(json.loads, lines)]
    rows = json.loads((data / name / "alpaca_en.json").read_text(encoding="utf-8"))
    return [("\n".join(filter(None, (row["instruction"], row["input"]))) + "\n", row["output"]) for row in rows]


def write_job(job: Job, folder: Path, data: Path, tokenizer: str) -> None:
    """Save the random model and the encoded rows that every way learns from."""
    import torch
    import transformers

    known = transformers.AutoTokenizer.from_pretrained(tokenizer)
    known.save_pretrained(folder / "base")
    torch.manual_seed(SEED)
    ends = {"bos_token_id": known.eos_token_id, "eos_token_id": known.eos_token_id}
    config = transformers.LlamaConfig(**job.shape, max_position_embeddings=2048, tie_word_embeddings=True, **ends)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "base")
    pairs = random.Random(SEED).sample(read_pairs(data, job.rows), COUNT)
    encoded = []
    for prompt, completion in pairs:
        start, end = known(prompt)["input_ids"], known(completion)["input_ids"]
        ids = [*start, *end, known.eos_token_id][:LENGTH]
        encoded.append({"input_ids": ids, "labels": [-100] * min(len(start), LENGTH) + ids[len(start) :]})
    (folder / "rows.json").write_text(json.dumps([row for row in encoded if set(row["labels"]) != {-100}]), encoding="utf-8")


class Clock:
    """Times steps and counts their real tokens, through callbacks and a collator that every way takes."""

    def __init__(self, collate: Callable[[Sequence[dict[str, Any]]], Any], device: str) -> None:
        self._collate, self._device = collate, device
        self.tokens: list[int] = []
        self.seconds: list[float] = []

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:
        self.tokens.append(sum(len(row["input_ids"]) for row in rows))
        return self._collate(rows)

    def callback(self) -> Any:
        import transformers

        clock = self

        class Watch(transformers.TrainerCallback):
            def on_step_begin(self, *arguments: Any, **more: Any) -> None:
                clock._start = clock._now()

            def on_step_end(self, *arguments: Any, **more: Any) -> None:
                clock.seconds.append(clock._now() - clock._start)

        return Watch()

    def _now(self) -> float:
        import torch

        if self._device == "cuda":
            torch.cuda.synchronize()
        elif self._device == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def figures(self, losses: Sequence[float]) -> dict[str, Any]:
        """Sum up all steps but the first; the collator may be a batch ahead of the steps."""
        tokens, seconds = self.tokens[1 : len(self.seconds)], self.seconds[1:]
        rate, best = sum(tokens) / sum(seconds), max(t / s for t, s in zip(tokens, seconds, strict=True))
        return {"rate": rate, "best": best, "losses": losses, "tokens": sum(tokens)}


def lora() -> Any:
    import peft

    return peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")


def same_start(model: Any) -> None:
    """Give every way the same initial adapter."""
    import torch

    torch.manual_seed(SEED)
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            torch.nn.init.kaiming_uniform_(parameter, a=5**0.5)


def common(folder: Path, job: Job, steps: int, device: str, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": job.batch,
        "max_steps": steps,
        "learning_rate": RATE,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        **more,
    }


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ours(
    folder: Path,
    job: Job,
    rows: Rows,
    steps: int,
    device: str,
    dtype: str = "auto",
    batching: str = "auto",
    kernels: bool = True,
) -> dict[str, Any]:
    """Train with the parts of a run."""
    import torch

    from smolora_core.batches.padding import Collator
    from smolora_core.components import Loss, Task
    from smolora_core.config import LoRAConfig, resolve
    from smolora_core.config.document import Document
    from smolora_core.fast.apply import make_fast
    from smolora_core.lora.attach import adaptable_modules, attach
    from smolora_core.lora.options import resolve_targets
    from smolora_core.model.load import load_base, read_config
    from smolora_core.plugins import PluginManager, build
    from smolora_core.training.arguments import make_arguments
    from smolora_core.training.loop import TrainingLoop
    from smolora_core.training.objective import make_objective

    values = {
        "model": {"path": str(folder / "base"), "dtype": dtype},
        "data": {"train": "rows"},
        "seed": SEED,
        "training": {
            "max_steps": steps,
            "logging_steps": 1,
            "learning_rate": RATE,
            "per_device_train_batch_size": job.batch,
            "gradient_accumulation_steps": 1,
        },
    }
    config = resolve(Document(values, {})).config
    registry = PluginManager.create().registry
    task = registry.resolve(Task, "causal-lm")
    base_config = read_config(config.model)
    base = load_base(config.model, task.component, torch.device(device), base_config)
    options = LoRAConfig(r=8, alpha=16, dropout=0.0, target_modules=PROJECTIONS)
    targets = resolve_targets(options, "llama", adaptable_modules(base.model), registry, lambda path: path)
    model = attach(base.model, options, targets, task.component, "base", SEED).model
    same_start(model)
    collator: Any = Collator(build(task), 0, SEED)
    loss = registry.resolve(Loss, "cross-entropy")
    speed = make_fast(model, collator.task, "token", batching=batching, kernels=kernels)
    arguments = make_arguments(config, folder / "out", torch.device(device), evaluates=False)
    if speed.batching.name == "grouped":
        arguments.train_sampling_strategy = "group_by_length"
    clock = Clock(speed.batching.collate or collator, device)
    trainer = TrainingLoop(
        objective=make_objective(loss, build(loss), model, run_model=speed.row_parallel.run),
        save=lambda *given: None,
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=clock,
        callbacks=[clock.callback()],
    )
    trainer.train()
    return clock.figures(losses_of(trainer))


def plain(folder: Path, job: Job, rows: Rows, steps: int, device: str, expert: bool) -> dict[str, Any]:
    """Train with transformers and peft: as they come, or as somebody would who knows what is slow."""
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype="bfloat16" if expert else "float32")
    model = peft.get_peft_model(base, lora())
    same_start(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base", pad_token="<|endoftext|>")
    clock = Clock(transformers.DataCollatorForSeq2Seq(tokenizer), device)
    sampling = {"train_sampling_strategy": "group_by_length"} if expert else {}
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**common(folder, job, steps, device, remove_unused_columns=False, **sampling)),
        train_dataset=rows,
        data_collator=clock,
        callbacks=[clock.callback()],
    )
    trainer.train()
    return clock.figures(losses_of(trainer))


def trl(folder: Path, job: Job, rows: Rows, steps: int, device: str, best: bool) -> dict[str, Any]:
    """Train with TRL: its defaults, or the fastest settings that were found for a processor."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    settings: dict[str, Any] = {"max_length": LENGTH}
    if best:
        settings |= {
            "bf16": False,
            "activation_checkpointing": False,
            "model_init_kwargs": {"dtype": "bfloat16"},
            "train_sampling_strategy": "group_by_length",
        }
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base", pad_token="<|endoftext|>")
    trainer = SFTTrainer(
        model=str(folder / "base"),
        args=SFTConfig(**common(folder, job, steps, device, **settings)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora(),
    )
    same_start(trainer.model)
    clock = Clock(trainer.data_collator, device)
    trainer.data_collator = clock
    trainer.add_callback(clock.callback())
    trainer.train()
    return clock.figures(losses_of(trainer))


def floor(folder: Path, job: Job, rows: Rows, steps: int, device: str) -> dict[str, Any]:
    """Multiply the matrices of a micro-batch alone."""
    import torch

    shape = job.shape
    hidden, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    keys = hidden // heads * shape["num_key_value_heads"]
    layer = [(hidden, hidden)] * 2 + [(hidden, keys)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    rng, best, total, spent = random.Random(SEED), 0.0, 0, 0.0
    kind: dict[str, Any] = {"dtype": torch.bfloat16, "device": device}
    weights = [torch.randn(out, into, **kind) for into, out in layer * shape["num_hidden_layers"]]
    head = torch.randn(shape["vocab_size"], hidden, **kind)
    clock = Clock(list, device)
    for step in range(steps):
        some = rng.sample(rows, job.batch)
        tokens = sum(len(row["input_ids"]) for row in some)
        supervised = sum(label != -100 for row in some for label in row["labels"][1:])
        given = {size: torch.randn(tokens, size, **kind) for size in {hidden, keys, inner}}
        start = clock._now()
        for weight in weights:
            torch.nn.functional.linear(given[weight.shape[1]], weight)
        for some_states in given[hidden][:supervised].split(256):
            torch.nn.functional.linear(some_states, head) @ head
        for weight in weights:
            given[weight.shape[0]] @ weight
        seconds = clock._now() - start
        if step:
            best, total, spent = max(best, tokens / seconds), total + tokens, spent + seconds
    return {"rate": total / spent, "best": best, "losses": [], "tokens": total}


WAYS: dict[str, Callable[..., dict[str, Any]]] = {
    "floor": floor,
    "ours": ours,
    "ours-float32": lambda *given: ours(*given, dtype="float32"),
    "ours-grouped": lambda *given: ours(*given, batching="grouped"),
    "ours-plain": lambda *given: ours(*given, batching="padded", kernels=False),
    "expert": lambda *given: plain(*given, expert=True),
    "naive": lambda *given: plain(*given, expert=False),
    "trl-defaults": lambda *given: trl(*given, best=False),
    "trl-best": lambda *given: trl(*given, best=True),
}


def peak_gigabytes() -> float:
    """The most resident memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def child(way: str, folder: Path, job: Job, steps: int, device: str) -> None:
    """Run one way and print its figures as the last line."""
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    found = WAYS[way](folder, job, rows, steps, device)
    print(json.dumps({**found, "memory": peak_gigabytes()}))


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=JOBS, default="A")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=[way for way in WAYS if not way.startswith("ours-")])
    parser.add_argument("--rounds", type=int, default=1, help="times each way runs, in alternation; the fastest counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    job = JOBS[given.job]
    if given.child:
        child(given.child[0], Path(given.child[1]), job, given.steps, given.device)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_job(job, folder, given.data, given.tokenizer)
        found: dict[str, dict[str, Any]] = {}
        for _ in range(given.rounds):
            for way in given.ways:
                figures = run_child(way, folder, given)
                if way not in found or figures["rate"] > found[way]["rate"]:
                    found[way] = figures
        show(found)


def run_child(way: str, folder: Path, given: Any) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.throughput", "--child", way, str(folder)]
    command += ["--job", given.job, "--steps", str(given.steps), "--device", given.device]
    command += ["--data", str(given.data), "--tokenizer", given.tokenizer]
    quiet = {"OMP_NUM_THREADS": str(given.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ended = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{way} failed:\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the figures, and how many times as fast ours is."""
    mine = found.get("ours", {}).get("rate")
    print("way           tokens/s  ours is   peak GB  losses")
    for way, figures in found.items():
        times = f"{mine / figures['rate']:.2f} x" if mine else ""
        losses = f"{figures['losses'][0]:.4f} .. {figures['losses'][-1]:.4f}" if figures["losses"] else ""
        print(f"{way:13} {figures['rate']:8.0f}  {times:8} {figures['memory']:8.2f}  {losses}", flush=True)


if __name__ == "__main__":
    main()
