"""Real models and data, where a person has them: set SMOLORA_REAL_INPUTS to a folder with `models/` and `data/`."""

import json
import os
from pathlib import Path

import pytest
import transformers

from smolora_core import SmoLoRA
from smolora_core.config import parse_flags
from smolora_core.config.load import load_config
from smolora_core.plugins import PluginManager
from smolora_core.run.check import check_run

INPUTS = Path(os.environ.get("SMOLORA_REAL_INPUTS", "/nowhere"))
HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INPUTS.is_dir(), reason="SMOLORA_REAL_INPUTS names no folder")]


def run(config: str, *flags: str) -> dict[str, float]:
    from smolora_core.run.execute import execute

    return execute(check_run(load_config(HERE / config, parse_flags(flags)[1]), PluginManager.create())).metrics


def test_shakespeare_is_learned_as_well_as_by_plain_peft(tmp_path: Path) -> None:
    metrics = run(
        "shakespeare.yaml",
        *("--model", str(INPUTS / "models" / "stories260K")),
        *("--data.train", str(INPUTS / "data" / "tinyshakespeare" / "input.txt")),
        *("--output_dir", str(tmp_path / "run")),
    )
    assert metrics["eval_loss_before"] == pytest.approx(4.99, abs=0.05)
    assert metrics["eval_loss"] <= 3.35


def test_of_a_word_problem_only_the_answer_is_supervised(tmp_path: Path) -> None:
    from datasets import load_from_disk

    tokenizer = transformers.AutoTokenizer.from_pretrained(INPUTS / "models" / "tokenizer_gpt2")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=50304, max_position_embeddings=512, tie_word_embeddings=True, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    file = INPUTS / "data" / "gsm8k" / "train.jsonl"
    SmoLoRA(
        str(tmp_path / "base"),
        str(file),
        output_dir=str(tmp_path / "run"),
        data={"prompt_field": "question", "completion_field": "answer"},
        training={"max_steps": 1},
        debug={"save_intermediate": True},
    ).train()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row, sequence in zip(rows, load_from_disk(str(tmp_path / "run" / "prepared")), strict=True):
        supervised = tokenizer.decode([label for label in sequence["labels"] if label != -100])
        assert supervised == row["answer"] + tokenizer.eos_token
