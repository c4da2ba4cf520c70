"""What a save costs that outlasts a loss of power, beside the plain save of transformers' Trainer, which does not.

Both save the same adapter of about 20 MB and its AdamW state of twice that, in turns:

    python tests/benchmarks/save_cost.py runs/cost --times 9
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import save_file

from smolora_core.checkpoints.retention import Keep
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store

HIDDEN, LAYERS, RANK = 1024, 8, 152


def make_trainer(folder: Path) -> Any:
    """Make a trainer that has taken a step, so that its optimizer has a state."""
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=HIDDEN, intermediate_size=256, num_hidden_layers=LAYERS, num_attention_heads=8
    )
    lora = peft.LoraConfig(r=RANK, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), lora)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        save_total_limit=2,
    )
    row = {"input_ids": list(range(8)), "labels": list(range(8))}
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=[row], data_collator=transformers.default_data_collator
    )
    trainer.train()
    return trainer


def write_adapter(checkpoint: Checkpoint, directory: Path) -> None:
    checkpoint.model.save_pretrained(directory, save_embedding_layers=False)
    (directory / "README.md").unlink()


def optimizer_writer(optimizer: torch.optim.Optimizer) -> Any:
    """Write the moments of every parameter as one file."""

    def write(checkpoint: Checkpoint, directory: Path) -> None:
        tensors = {
            f"{number}.{slot}": tensor.contiguous()
            for number, state in enumerate(optimizer.state.values())
            for slot, tensor in state.items()
            if torch.is_tensor(tensor)
        }
        save_file(tensors, directory / "optimizer.safetensors")

    return write


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=int, default=9)
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    trainer = make_trainer(given.folder / "plain")
    ours = Store(folder=given.folder / "ours", run_id="cost", keep=Keep(latest=2), warn=print)
    writers = [("adapter", write_adapter), ("optimizer", optimizer_writer(trainer.optimizer.optimizer))]
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "ours, the files alone": []}
    size = 0
    for step in range(1, given.times + 1):
        trainer.state.global_step = step
        begin = time.perf_counter()
        trainer._save_checkpoint(trainer.model, trial=None)
        seconds["plain"].append(time.perf_counter() - begin)
        checkpoint = Checkpoint(step=step, model=trainer.model, tokenizer=None, metrics={"loss": 1.0}, config={})
        begin = time.perf_counter()
        place = ours.commit(checkpoint, writers)
        seconds["ours"].append(time.perf_counter() - begin)
        size = sum(file.stat().st_size for file in place.iterdir())
        alone = given.folder / "alone"
        alone.mkdir()
        begin = time.perf_counter()
        for _, write in writers:
            write(checkpoint, alone)
        seconds["ours, the files alone"].append(time.perf_counter() - begin)
        shutil.rmtree(alone)
    plain = statistics.median(seconds["plain"])
    print(f"{size / 1e6:.1f} MB, median of {given.times}")
    for way, each in seconds.items():
        low, middle, high = (1000 * pick(each) for pick in (min, statistics.median, max))
        print(f"{way:<22} {middle:6.0f} ms  ({middle / 1000 / plain:.1f}x plain; {low:.0f} to {high:.0f})")


if __name__ == "__main__":
    main()
