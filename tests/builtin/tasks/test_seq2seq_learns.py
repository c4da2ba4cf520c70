"""A random T5 learns 64 completions by heart."""

import json
import random

import pytest
import torch

from smolora_core import LoRAConfig, SmoLoRA, TrainingConfig
from tests.support.models import WORDS, save_t5
from tests.support.small_tasks import Watch


@pytest.mark.slow
def test_completions_are_learned_by_heart(tmp_path):
    rng = random.Random(0)
    rows = [
        {
            "prompt": f"{rng.choice(WORDS)} {rng.choice(WORDS)} {number}",
            "completion": f"{rng.choice(WORDS)} {rng.choice(WORDS)}",
        }
        for number in range(64)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    model, watch = save_t5(tmp_path / "t5", d_model=64, d_kv=16, d_ff=128, num_layers=1), Watch()
    SmoLoRA(
        str(model),
        str(file),
        output_dir=str(tmp_path / "run"),
        lora=LoRAConfig(r=64, alpha=128, dropout=0.0),
        training=TrainingConfig(
            num_train_epochs=200, learning_rate=5e-3, per_device_train_batch_size=32, gradient_accumulation_steps=1
        ),
        model={"dtype": "float32", "device": "cpu"},
        plugins=[watch],
    ).train()
    tokenizer, trained = watch.outcome.tokenizer, watch.outcome.model.eval()
    prompts = tokenizer([row["prompt"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        written = trained.generate(
            input_ids=prompts["input_ids"], attention_mask=prompts["attention_mask"], max_new_tokens=16, do_sample=False
        )
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    right = sum(text == row["completion"] for text, row in zip(texts, rows, strict=True))
    assert right / len(rows) > 0.95
