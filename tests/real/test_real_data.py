"""Real data sets, each with the config that comes to mind: looked at, previewed, trained on, and accounted for to the row."""

import json
import os
from pathlib import Path

import pytest
import transformers

from smolora_core.cli import main

INPUTS = Path(os.environ.get("SMOLORA_REAL_INPUTS", "/nowhere"))
DATA = INPUTS / "data"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INPUTS.is_dir(), reason="SMOLORA_REAL_INPUTS names no folder")]

JOINED = "[{name: template, text: \"{{ tokens | join(' ') }}\"}]"
SETS = {
    "alpaca": (
        ["--data.train", DATA / "alpaca_en" / "alpaca_en.json"],
        {"train": {"read": 999, "kept": 999, "truncated": 17}},
    ),
    "gsm8k": (
        [
            "--data.train",
            DATA / "gsm8k" / "train.jsonl",
            "--data.eval",
            DATA / "gsm8k" / "test.jsonl",
            "--data.prompt_field",
            "question",
            "--data.completion_field",
            "answer",
        ],
        {"train": {"read": 1500, "kept": 1500, "truncated": 0}, "eval": {"read": 200, "kept": 200}},
    ),
    "shakespeare": (
        ["--data.train", DATA / "tinyshakespeare" / "input.txt", "--data.eval", "0.1"],
        {"train": {"read": 1, "kept": 1, "tokens_lost": 0}, "eval": {"read": 1, "kept": 1, "tokens_lost": 0}},
    ),
    "sms_spam": (
        ["--data.train", DATA / "sms_spam" / "spam.csv", "--data.text_field", "v2", "--data.preprocessors", "[dedup]"],
        {"train": {"read": 5572, "kept": 5169, "truncated": 0}},
    ),
    "emobank": (
        ["--data.train", DATA / "emobank" / "emobank.csv"],
        {"train": {"read": 10062, "kept": 10062, "truncated": 0}},
    ),
    "wnut17": (
        [
            "--data.train",
            DATA / "wnut17" / "wnut17train.conll",
            "--data.eval",
            DATA / "wnut17" / "emerging.dev.conll",
            "--data.preprocessors",
            JOINED,
        ],
        {"train": {"read": 3394, "kept": 3394}, "eval": {"read": 1009, "kept": 1009}},
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers behind a real tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    transformers.AutoTokenizer.from_pretrained(INPUTS / "models" / "tokenizer_gpt2").save_pretrained(folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=50304, max_position_embeddings=512, tie_word_embeddings=True, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", SETS)
def test_every_row_of_a_real_set_is_accounted_for(name: str, base: Path, tmp_path: Path, capsys) -> None:
    given, expected = SETS[name]
    flags = ["--model", base, "--output_dir", tmp_path / "run", "--training.max_steps", 3, *given]
    run = [*map(str, flags), "--training.gradient_accumulation_steps", "1"]
    for command in (["check"], ["data", "preview"], ["train"]):
        assert main([*command, *run]) == 0, capsys.readouterr().err
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert list(ledger) == list(expected)
    for side, counts in expected.items():
        found = ledger[side]
        assert {key: found[key] for key in counts} == counts
        assert found["read"] + found["added"] == found["kept"] + sum(entry["rows"] for entry in found["dropped"])
        for step in found["steps"]:
            dropped = sum(entry["rows"] for entry in found["dropped"] if entry["step"] == step["step"])
            assert step["rows_in"] == step["rows_out"] + dropped


def test_a_latin_1_file_comes_through_to_the_byte(base: Path) -> None:
    from smolora_core.data.sources import open_source

    file = DATA / "sms_spam" / "spam.csv"
    source = open_source(str(file))
    texts = [located.row["v2"] for located in source.rows()]
    raw = file.read_bytes().decode("latin-1")
    assert all(text.replace('"', '""') in raw or text in raw for text in texts)
    assert [note.partition("spam.csv")[2] for note in source.notes()] == [
        ":7 is not UTF-8 (byte 0xe5), reading it as latin-1; set data.encoding if that is wrong",
        ":1 has unnamed columns, calling them column_3, column_4, column_5",
    ]
