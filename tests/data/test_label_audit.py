"""The label audit: what it counts in collated batches, what it warns of, and what it stops."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from smolora_core.batches.padding import pad
from smolora_core.data.label_audit import Audit, audit_labels
from smolora_core.errors import DatasetError

PROMPT = "who was the cat that sat on the mat and why?"


@pytest.fixture(scope="module")
def tokenizer(llama: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(llama)


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    return pad(rows, 0)


def sequence(tokenizer: Any, prompt: str, answer: str, *, end: bool = True, leak: bool = False) -> dict[str, list[int]]:
    before, after = tokenizer(prompt)["input_ids"], tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id] * end
    return {"input_ids": before + after, "labels": (before if leak else [-100] * len(before)) + after}


def audited(rows: Sequence[Mapping[str, Any]], tokenizer: Any, **prompts: Sequence[str]) -> Audit:
    return audit_labels(rows, collate, tokenizer, 2, {index: [PROMPT] for index in range(len(rows))})


def test_it_counts_what_the_batches_train(tokenizer: Any) -> None:
    rows = [sequence(tokenizer, PROMPT, " a cat"), sequence(tokenizer, "why?", " not", end=False), sequence(tokenizer, "a", "")]
    rows.append({"input_ids": [5, 6], "labels": [-100, -100]})
    found = audited(rows, tokenizer)
    assert found == Audit(
        rows=4,
        tokens=sum(len(row["input_ids"]) for row in rows),
        supervised=sum(label != -100 for row in rows for label in row["labels"]),
        unsupervised_rows=1,
        ended_rows=2,
        prompted_rows=4,
        leaking_rows=0,
    )
    assert list(found.warnings()) == ["1 of 4 sequences have no supervised token and do not contribute"]


def test_a_prompt_among_the_supervised_tokens_is_found(tokenizer: Any) -> None:
    found = audited([sequence(tokenizer, PROMPT, " a cat", leak=True)] * 3, tokenizer)
    assert list(found.warnings()) == ["3 of 3 sequences have their prompt among the supervised tokens"]


def test_a_model_that_would_not_learn_to_stop_is_warned_of(tokenizer: Any) -> None:
    found = audited([sequence(tokenizer, PROMPT, " a cat", end=False)], tokenizer)
    assert list(found.warnings()) == ["no sequence ends with a supervised end token, so the model will not learn to stop"]


def test_a_collate_that_masks_everything_stops_the_run(tokenizer: Any) -> None:
    def forgetful(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(rows)
        return {**batch, "labels": torch.full_like(batch["labels"], -100)}

    with pytest.raises(DatasetError) as caught:
        audit_labels([sequence(tokenizer, "why?", " not")] * 3, forgetful, tokenizer, 2, {})
    assert str(caught.value) == (
        "0 trainable tokens in the first 3 sequences as batched; the task's collate, or a plugin, masks every label"
    )
