"""What a quantised base saves and costs, beside the same base in bfloat16.

Bytes are those of all weights that are not trained, with their scales; a model has a few layers here, and is counted as if it
had all of them. Losses are of the same rows after the same steps, from several seeds: with one, what a small base learns in few
steps differs by more than what rounding costs. It needs the extra `quant`.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from smolora_core import load, train
from smolora_core.lora.merge import merge_and_save
from smolora_plugins.demo import task
from tests.support.models import save_tokenizer

# Vocabulary, width, inner width, layers, heads, key heads, and whether the head is tied to the embeddings.
SHAPES = {
    "135M": (49152, 576, 1536, 30, 9, 3, True),
    "0.5B": (151936, 896, 4864, 24, 14, 2, True),
    "1B": (128256, 2048, 8192, 16, 32, 8, True),
    "7B": (32000, 4096, 11008, 32, 32, 32, False),
}
FORMATS: dict[str, Any] = {
    "bfloat16": "none",
    **{kind: [{"name": "quantised", "format": kind}] for kind in ("nf4", "int8", "torchao-int8")},
    **{f"{kind}+e": [{"name": "quantised", "format": kind, "embeddings": True}] for kind in ("nf4", "int8", "torchao-int8")},
}


def save(folder: Path, shape: str, layers: int) -> Path:
    """Save a random model of a shape, with fewer layers."""
    vocabulary, width, inner, _, heads, key_heads, tied = SHAPES[shape]
    save_tokenizer(folder)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    return folder


def settings(base: Path | str, folder: Path, memory: Any, steps: int, **training: Any) -> dict[str, Any]:
    """Make a config of a run on the demo's rows."""
    for split in ("train", "eval"):
        rows = list(task.rows(split))[: 200 if split == "train" else 30]
        (folder.parent / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {
        "model": {"path": str(base), "dtype": "bfloat16", "device": "cpu"},
        "data": {"train": str(folder.parent / "train.jsonl"), "eval": str(folder.parent / "eval.jsonl"), "cache": False},
        "output_dir": str(folder),
        "memory": memory,
        "training": {"max_steps": steps, "gradient_accumulation_steps": 1, **training},
    }


def bytes_of(model: torch.nn.Module) -> dict[str, int]:
    """Count the frozen bytes of a layer's linear weights, and of everything that is not in a layer."""
    counted = {"layer": 0, "rest": 0}
    seen = set()
    for name, each in [*model.named_parameters(), *model.named_buffers()]:
        if each.requires_grad:
            continue
        state = getattr(each, "quant_state", None)
        inner = [getattr(each, part, None) for part in ("qdata", "scale", "SCB")]
        inner += (
            [state.absmax, state.code, *([state.state2.absmax, state.state2.code] if state.nested else [])] if state else []
        )
        tensors = [part for part in inner if isinstance(part, torch.Tensor)]
        tensors += [] if hasattr(each, "qdata") else [each.data]
        for part in tensors:
            if part.data_ptr() not in seen:
                seen.add(part.data_ptr())
                counted["layer" if ".layers." in name else "rest"] += part.nbytes
    return counted


def resident() -> int:
    """Read how much memory the process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def sizes(shape: str, layers: int, folder: Path) -> None:
    """Print what each format takes."""
    base = save(folder / shape, shape, layers)
    expected: dict[str, int] = {}
    every = SHAPES[shape][3]
    for name, memory in FORMATS.items():
        before = resident()
        start = time.perf_counter()
        config = settings(base, folder / f"{shape}-{name}", memory, 1, per_device_train_batch_size=1)
        del config["data"]["eval"]
        model = train(config).model
        took, held = time.perf_counter() - start, resident() - before
        found = bytes_of(model)
        del model
        whole = found["layer"] // layers * every + found["rest"]
        expected = expected or {"layer": found["layer"], "whole": whole}
        print(
            f"{shape:>6} {name:>15} layers {found['layer'] / expected['layer']:.3f}  "
            f"whole model {whole / expected['whole']:.3f}  {whole / 2**20:7.0f} MiB "
            f"(here {sum(found.values()) / 2**20:5.0f}, resident {held / 2**20:+5.0f})  {took:4.0f} s",
            flush=True,
        )


def losses(base: Path | str, name: str, given: argparse.Namespace, folder: Path) -> None:
    """Print what each format learns, and whether it goes on, merges and loads again."""
    options = {"learning_rate": given.rate, "per_device_train_batch_size": 4, "logging_steps": 10}
    expected: list[float] = []
    for kind in dict.fromkeys(("bfloat16", *given.formats)):
        found, start = [], time.perf_counter()
        for seed in range(42, 42 + given.seeds):
            config = settings(base, folder / f"{name}-{kind}-{seed}", FORMATS[kind], given.steps, **options) | {"seed": seed}
            outcome = train(config)
            found.append(outcome.metrics["eval_loss"])
        took, before = (time.perf_counter() - start) / given.seeds, outcome.metrics["eval_loss_before"]
        expected = expected or found
        apart = [one / other - 1 for one, other in zip(found, expected, strict=True)]
        spread = statistics.stdev(apart) / given.seeds**0.5 if given.seeds > 1 else float("nan")
        checks = continues_and_merges(outcome, config, given.steps, folder / f"{name}-{kind}-merged")
        print(
            f"{name:>6} {kind:>15} loss {before:.4f} -> {statistics.mean(found):.4f} ({statistics.mean(apart):+.1%}, standard "
            f"error {spread:.1%}, {min(apart):+.1%} to {max(apart):+.1%})  {took:4.0f} s  {checks}",
            flush=True,
        )


def continues_and_merges(outcome: Any, config: dict[str, Any], steps: int, folder: Path) -> str:
    """Take a further step, merge_and_save, and load the adapter on the plain base; say how far their logits are apart."""
    resumed = train({**config, "training": {**config["training"], "max_steps": steps + 1}}, resume="auto").steps == steps + 1
    merged = merge_and_save(outcome.model, outcome.tokenizer, folder)
    ids = torch.arange(5, 69)[None]
    with torch.no_grad():
        trained = outcome.model.eval()(input_ids=ids).logits.float()
        of_merged = transformers.AutoModelForCausalLM.from_pretrained(merged).eval()(input_ids=ids).logits.float()
        of_adapter = load(outcome.adapter).model.eval()(input_ids=ids).logits.float()
    apart = [((each - trained).norm() / trained.norm()).item() for each in (of_merged, of_adapter)]
    return f"resumes {resumed}  merged differs by {apart[0]:.3f}, the adapter on the plain base by {apart[1]:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=["135M", "0.5B"], choices=SHAPES)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=8, help="runs of each format")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate")
    parser.add_argument("--formats", nargs="*", default=[*FORMATS], choices=FORMATS, help="to learn in, beside bfloat16")
    parser.add_argument("--base", nargs="*", default=["demo"], help="demo, one of the shapes, or folders of models")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        for shape in given.sizes:
            sizes(shape, given.layers, Path(folder))
        for base in given.base:
            if base in SHAPES:
                path = save(Path(folder) / "learning", base, given.layers)
            else:
                path = Path(task.__file__).parent / "base" if base == "demo" else Path(base)
            losses(path, path.name, given, Path(folder))


if __name__ == "__main__":
    main()
