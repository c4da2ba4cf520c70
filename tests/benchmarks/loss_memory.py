"""How much memory a step's loss takes against the vocabulary and the batch, and what a custom loss costs beside cross-entropy.

    python -m tests.benchmarks.loss_memory

The models are random Llamas in bfloat16 with adapters, of so few layers that the head is most of the work, and every token is
supervised. `plain` is the model's own loss, of its full logits. A step is forward and backward; each is taken in a process of
its own, after a warm-up of eight tokens, and its memory is the most that the process held in it, less what it held before.
Steps are timed in turn in one process, as time of the processor, which others on the machine do not lengthen; the fastest
counts. The target: a custom loss takes at most 1.15 times the memory and the time of cross-entropy.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from smolora_core.model.device import peak_memory, reset_peak_memory, resident_memory
from smolora_core.training.objective import make_objective
from tests.support.small_run import adapted, registered

LENGTH, TARGET = 256, 1.15
TABLES = ("vocabulary", "batch", "custom")
VOCABULARIES, BATCHES = (2**15, 2**16, 2**17, 2**18), (1, 2, 4, 8, 16)


@attrs.frozen
class Case:
    """A model and a micro-batch.

    Attributes:
        vocabulary: logits of a position.
        rows: of 256 tokens.
        hidden: width of the model.
        layers: of it.
    """

    vocabulary: int
    rows: int = 4
    hidden: int = 256
    layers: int = 2

    @property
    def title(self) -> str:
        return f"{self.hidden} x {self.vocabulary:,}, {self.layers} layers, {self.rows} x {LENGTH} tokens"


SMOL = Case(49152, rows=2, hidden=576, layers=4)
"""The head of SmolLM2-135M."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    """What somebody writes who knows the formula alone."""
    chosen = logits.softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    return -((1 - chosen) ** 2) * chosen.log()


def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
    """A loss that goes through the logits more often."""
    logs = logits.log_softmax(-1)
    return -0.9 * logs.gather(-1, targets[:, None]).squeeze(-1) - 0.1 * logs.mean(-1)


LOSSES = {"cross-entropy": cross_entropy, "focal": focal, "smoothed": smoothed}


def make(case: Case) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        intermediate_size=3 * case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=case.hidden // 64,
        num_key_value_heads=case.hidden // 64,
        tie_word_embeddings=True,
    )
    return adapted(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16))


def step_of(way: str, model: Any) -> Callable[[int, int], None]:
    """Make what takes a step over so many rows of so many tokens."""
    loss = LOSSES.get(way)
    measure = make_objective(registered(loss), loss, model) if loss else None

    def step(rows: int, length: int) -> None:
        # One more, because the first token of a row is no target.
        ids = torch.randint(model.config.vocab_size, (rows, length + 1))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        (measure(model, batch).sum if measure else model(**batch, use_cache=False).loss).backward()

    return step


def memory_of(way: str, case: Case) -> float:
    """Take one step; return its megabytes."""
    step = step_of(way, make(case))
    step(1, 8)
    assert reset_peak_memory(), "only Linux begins to look for the peak anew, and making the model took memory too"
    before = resident_memory()
    step(case.rows, LENGTH)
    return (peak_memory() - before) / 2**20


def times_of(ways: Sequence[str], case: Case, rounds: int) -> dict[str, float]:
    """Take steps of several ways in turn; return the seconds of the fastest."""
    model = make(case)
    steps = {way: step_of(way, model) for way in ways}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds + 1):
        for way, step in steps.items():
            start = time.process_time()
            step(case.rows, LENGTH)
            best[way] = min(best[way], time.process_time() - start)
    return best


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, which has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["peft", "tests.support.small_run"])
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def show_memory(cases: Sequence[Case]) -> None:
    """Print a line for each case."""
    print(f"\n{'MB of a step':52}{'full logits':>12}{'ours':>8}{'focal':>8}{'plain':>8}  plain / ours", flush=True)
    for case in cases:
        ours, custom, plain = (apart(memory_of, way, case) for way in ("cross-entropy", "focal", "plain"))
        full = 4 * case.vocabulary * case.rows * LENGTH / 2**20
        print(f"{case.title:52}{full:12.0f}{ours:8.0f}{custom:8.0f}{plain:8.0f}  {plain / ours:.1f} x", flush=True)


def show_custom(cases: Sequence[Case], rounds: int) -> None:
    """Print what losses cost beside cross-entropy."""
    for case in cases:
        times = apart(times_of, tuple(LOSSES), case, rounds)
        print(f"\n{case.title:52}{'seconds':>9}{'ratio':>7}{'MB':>8}{'ratio':>7}   target {TARGET}")
        memory = {way: apart(memory_of, way, case) for way in LOSSES}
        for way in LOSSES:
            ratios = times[way] / times["cross-entropy"], memory[way] / memory["cross-entropy"]
            print(f"{way:52}{times[way]:9.3f}{ratios[0]:7.2f}{memory[way]:8.0f}{ratios[1]:7.2f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", choices=TABLES, nargs="+", default=TABLES)
    parser.add_argument("--rounds", type=int, default=5, help="times each step is timed")
    given = parser.parse_args()
    if "vocabulary" in given.tables:
        show_memory([*(Case(each) for each in VOCABULARIES), SMOL])
    if "batch" in given.tables:
        show_memory([Case(2**16, rows) for rows in BATCHES])
    if "custom" in given.tables:
        show_custom([SMOL, Case(2**16), Case(2**18, 1)], given.rounds)


if __name__ == "__main__":
    main()
