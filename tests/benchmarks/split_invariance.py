"""Does a step hang on how its rows are split? Ours for every task and every built-in loss that fits, and stock Trainer.

    python -m tests.benchmarks.split_invariance [--ranks 2]

For each pair, the gradient of one optimizer step over eight rows, as micro-batches of 8, 4 and 1 rows, and on two ranks of
4. Shown is the largest difference of a tensor from that of 8 x 1, relative to the tensor's norm. Of `transformers.Trainer`,
with the model's own loss, the same adapter and the same batches, it is how many times as long the gradient is.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from safetensors.torch import load_file, save_file

from smolora_core import Loss, Task, hookimpl, train
from smolora_core.plugins import PluginManager, Tier
from tests.support.models import WORDS, save_encoder, save_llama, save_t5
from tests.support.small_run import Watch, difference

SPLITS = {"8 x 1": (8, 1), "4 x 2": (4, 2), "1 x 8": (1, 8)}
Gradient = dict[str, torch.Tensor]

_LENGTHS = (3, 9, 5, 12, 4, 7, 18, 6)
_TEXTS = [" ".join(WORDS[(3 * row + place) % len(WORDS)] for place in range(length)) for row, length in enumerate(_LENGTHS)]
_TAGS = ("O", "B-thing", "I-thing")
ROWS = [
    {
        "text": text,
        "prompt": f"what {WORDS[row]}",
        "completion": f" {text}",
        "tokens": text.split(),
        "tags": [_TAGS[(row + place) % 3] for place in range(len(text.split()))],
        "kind": ("good", "bad", "short")[row % 3],
        "kinds": [("good", "bad", "short")[each] for each in range(3) if row >> each & 1],
        "V": 1 + row / 4,
        "A": 3 - row / 8,
        "D": row % 3 / 2,
        "weight": 0.5 + row / 4,
    }
    for row, text in enumerate(_TEXTS)
]
OPTIONS = {"weighted-mse": {"weights": [1, 2, 0.5]}, "bce": {"pos_weight": [1, 2, 0.5]}}
BASES = {"llama": save_llama, "bert": save_encoder, "t5": save_t5}


@attrs.frozen
class Case:
    """A task with rows that it learns from.

    Attributes:
        task: its name.
        base: its name among `BASES`.
        columns: of the rows, the weight aside.
        data: the config's section.
        default: the field of the task's record that names the loss of such rows.
    """

    task: str
    base: str
    columns: tuple[str, ...]
    data: Mapping[str, Any] = attrs.field(factory=dict)
    default: str = "loss"


CASES = {
    "causal-lm": Case("causal-lm", "llama", ("prompt", "completion")),
    "seq2seq-lm": Case("seq2seq-lm", "t5", ("prompt", "completion")),
    "masked-lm": Case("masked-lm", "bert", ("text",)),
    "whole-word-masked-lm": Case("whole-word-masked-lm", "bert", ("text",)),
    "sequence-classification": Case("sequence-classification", "bert", ("text", "kind"), {"label_field": "kind"}),
    "sequence-classification, several": Case(
        "sequence-classification", "bert", ("text", "kinds"), {"label_field": "kinds"}, "multi_label_loss"
    ),
    "regression": Case("regression", "bert", ("text", "V", "A", "D"), {"label_field": ["V", "A", "D"]}),
    "token-classification": Case("token-classification", "bert", ("tokens", "tags")),
}


def pairs() -> Iterator[tuple[str, str, bool]]:
    """List the cases of tasks that are there, the losses that fit each, and whether rows weigh differently."""
    registry = PluginManager.create().registry
    tasks = {found.component.name: found.component for found in registry.of_kind(Task)}
    losses = [found.component for found in registry.of_kind(Loss) if found.origin.tier is Tier.BUILT_IN]
    for name, case in CASES.items():
        if case.task in tasks:
            default = getattr(tasks[case.task], case.default)
            kind = registry.resolve(Loss, default).component.kind
            yield name, default, True
            yield from ((name, loss.name, False) for loss in losses if loss.kind == kind)


class Seen(Watch):
    """A plugin that makes every trained tensor another than zero, and keeps the gradient and what a stock Trainer needs."""

    @hookimpl
    def smolora_adapter_attached(self, model: Any, run: Any) -> None:
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        self.model = copy.deepcopy(model)

    @hookimpl
    def smolora_callbacks(self, run: Any) -> list[Any]:
        return [self]

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **more: Any) -> None:
        self.rows, self.collate = train_dataloader.dataset, train_dataloader.collate_fn


def step(folder: Path, pair: tuple[str, str, bool], micro_batch: int, accumulation: int) -> Seen:
    """Take one optimizer step with ours."""
    name, loss, weighted = pair
    case, seen = CASES[name], Seen()
    base = folder / case.base
    if not base.exists():
        BASES[case.base](base)
    rows = [{column: row[column] for column in (*case.columns, "weight")} for row in ROWS]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = {
        "model": {"path": str(base), "dtype": "float32", "device": "cpu"},
        "task": case.task,
        "output_dir": str(folder / f"run-{os.environ.get('RANK', '')}"),
        "data": {**case.data, "train": str(folder / "rows.jsonl"), **({"weight_field": "weight"} if weighted else {})},
        "lora": {"dropout": 0.0},
        "loss": {"name": loss, **OPTIONS.get(loss, {})},
        "training": {
            "max_steps": 1,
            "per_device_train_batch_size": micro_batch,
            "gradient_accumulation_steps": accumulation,
            "extra": {"max_grad_norm": 0.0},
        },
    }
    train(config, plugins=[seen])
    return seen


def stock(folder: Path, seen: Seen, micro_batch: int, accumulation: int) -> Gradient:
    """Take the same step with `transformers.Trainer` and the model's own loss."""
    watch = Watch()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "stock"),
        max_steps=1,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=0.0,
        use_cpu=True,
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    model = copy.deepcopy(seen.model)
    rows = [seen.rows[place] for place in range(len(seen.rows))]
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=seen.collate, callbacks=[watch]
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return watch.gradients[0]


def longer(gradient: Gradient, than: Gradient) -> float:
    lengths = [torch.stack([each.norm() for each in one.values()]).norm() for one in (gradient, than)]
    return (lengths[0] / lengths[1]).item()


def unwrapped(gradient: Gradient) -> Gradient:
    return {name.removeprefix("module."): each for name, each in gradient.items()}


def file_of(folder: Path, pair: tuple[str, str, bool], rank: int, whose: str = "ours") -> Path:
    return folder / "-".join([whose, *map(str, pair), f"{rank}.safetensors"])


def on_a_rank(folder: Path) -> None:
    """Take the steps of one rank of two, and leave the gradients behind."""
    rank = int(os.environ["RANK"])
    for pair in pairs():
        seen = step(folder, pair, 4, 1)
        save_file(unwrapped(seen.gradients[0]), file_of(folder, pair, rank))
        if pair[2]:
            save_file(unwrapped(stock(folder, seen, 4, 1)), file_of(folder, pair, rank, "stock"))
    torch.distributed.barrier()
    # Taking gloo down aborts or hangs now and then, and nothing is left to do.
    os._exit(0)


def launch(folder: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    command = [*launcher, "-m", "tests.benchmarks.split_invariance", "--rank-in", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr[-3000:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, choices=(1, 2), default=2)
    parser.add_argument("--rank-in", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if given.rank_in:
        on_a_rank(given.rank_in)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SMOLORA_CACHE"] = str(folder / "cache")
        columns = [*list(SPLITS)[1:], *["2 ranks x 4"] * (given.ranks == 2)]
        print(f"{'task':34} {'loss':24} {''.join(f'{each:>12}' for each in columns)}   longer with stock Trainer")
        found, rivals = {}, {}
        for pair in pairs():
            seen = {split: step(folder, pair, *sizes) for split, sizes in SPLITS.items()}
            found[pair] = {split: each.gradients[0] for split, each in seen.items()}
            if pair[2]:
                rivals[pair] = {split: stock(folder, seen["8 x 1"], *sizes) for split, sizes in SPLITS.items()}
        if given.ranks == 2:
            launch(folder)
            for pair in found:
                found[pair]["2 ranks x 4"] = load_file(file_of(folder, pair, 1))
            for pair in rivals:
                rivals[pair]["2 ranks x 4"] = load_file(file_of(folder, pair, 1, "stock"))
        for pair, gradients in found.items():
            case, loss, weighted = pair
            ours = "".join(f"{difference(gradients[split], gradients['8 x 1']):12.1e}" for split in columns)
            rival = rivals.get(pair)
            times = "  ".join(f"{split}: {longer(rival[split], rival['8 x 1']):.3f}" for split in columns) if rival else ""
            print(f"{case:34} {loss + weighted * ', rows weigh':24} {ours}   {times}")


if __name__ == "__main__":
    main()
