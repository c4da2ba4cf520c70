"""Rows that are prepared while training: every row once a pass, in another order each time, and accounted for once."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from smolora_core import Drop, SmoLoRA
from smolora_core.data.pipeline import PreparedRows
from smolora_core.errors import ConfigError, DatasetError
from tests.support.streamed import streamed


@pytest.fixture(scope="module")
def tokenizer(llama: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(llama)


def texts_of(found: PreparedRows, tokenizer: Any) -> list[str]:
    return [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in found.dataset]


def test_each_pass_has_every_row_once_in_an_order_of_its_own(tokenizer: Any) -> None:
    texts = [f"cat {number}" for number in range(2500)]
    found = streamed(tokenizer, texts)
    passes = []
    for epoch in (0, 1, 0):
        found.dataset.set_epoch(epoch)
        passes.append(texts_of(found, tokenizer))
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(texts)
    assert passes[0] == passes[2]
    assert len({tuple(texts), tuple(passes[0]), tuple(passes[1])}) == 3


def test_the_ledger_counts_the_first_pass_only(tokenizer: Any) -> None:
    found = streamed(tokenizer, ["cat"] * 1500 + [5], on_bad_row="drop")
    assert found.ledger.read == 0
    for _ in range(2):
        assert len(list(found.dataset)) == 1500
    assert (found.ledger.read, found.ledger.kept, found.ledger.dropped) == (1501, 1500, 1)


def test_a_step_that_remembers_starts_afresh_in_each_pass(tokenizer: Any) -> None:
    class Once:
        def __init__(self) -> None:
            self.seen: set[str] = set()

        def __call__(self, row: dict[str, Any]) -> Any:
            if row["text"] in self.seen:
                return Drop("again")
            self.seen.add(row["text"])
            return row

    found = streamed(tokenizer, ["the", "cat", "the"], Once)
    assert [sorted(texts_of(found, tokenizer)) for _ in range(2)] == [["cat", "the"]] * 2


def test_what_is_wrong_with_the_first_rows_is_said_at_once(tokenizer: Any) -> None:
    with pytest.raises(DatasetError, match=r"rows\.jsonl:2 column 'text' must be text, got int 5"):
        streamed(tokenizer, ["cat", 5])


def test_too_many_lost_rows_stop_a_stream_before_its_end(tokenizer: Any) -> None:
    found = streamed(tokenizer, ["cat", 5] * 5000, on_bad_row="drop", max_row_loss=0.2)
    with pytest.raises(DatasetError, match=r"data\.train: \d+ of \d+ rows \(50\.0%\) could not be used"):
        list(found.dataset)
    assert found.ledger.read < 10_000


def test_a_run_trains_on_a_stream_and_accounts_for_it_in_the_end(tmp_path: Path, llama: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "the cat sat"}\n' * 12 + '{"text": 5}\n')
    events = []
    lora = SmoLoRA(
        str(llama),
        str(tmp_path / "rows.jsonl"),
        output_dir=str(tmp_path / "run"),
        data={"streaming": True, "on_bad_row": "drop", "max_seq_length": 16},
        training={"max_steps": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
        listener=events.append,
    )
    assert lora.train()["train_loss"] > 0
    account = [event.values["train"] for event in events if event.kind == "data"]
    assert [(ledger["read"], ledger["kept"]) for ledger in account] == [(13, 12)]


def test_a_stream_needs_to_be_told_how_long_to_train(tmp_path: Path, llama: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "the cat sat"}\n')
    lora = SmoLoRA(str(llama), str(tmp_path / "rows.jsonl"), output_dir=str(tmp_path / "run"), data={"streaming": True})
    with pytest.raises(ConfigError) as caught:
        lora.train()
    assert str(caught.value) == "given from Python data.streaming does not count rows in advance; set training.max_steps"
