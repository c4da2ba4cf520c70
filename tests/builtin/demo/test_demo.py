"""The bundled demo: its data, its size, and what it shows."""

import json
import math
import re
from pathlib import Path

import pytest

import smolora_plugins.demo
from smolora_core.cli import main
from smolora_plugins.demo import grammar, task

HOME = Path(smolora_plugins.demo.__file__).parent


def test_held_out_rows_share_no_row_and_no_name_with_training() -> None:
    def facts(split: str) -> list[dict[str, object]]:
        return [json.loads(row["completion"]) for row in task.rows(split)]

    assert (len(facts("train")), len(facts("eval"))) == (512, 64)
    assert not {row["prompt"] for row in task.rows("train")} & {row["prompt"] for row in task.rows("eval")}
    assert not {fact["name"] for fact in facts("train")} & {fact["name"] for fact in facts("eval")}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_answer_can_be_read_from_its_prompt(split: str) -> None:
    for row in task.rows(split):
        facts = json.loads(row["completion"])
        assert all(str(value) in row["prompt"] for value in facts.values()), row


def test_rows_and_pretraining_text_are_the_same_every_time() -> None:
    assert task.rows("train") == task.rows("train")
    one, two = grammar.documents(1), grammar.documents(1)
    assert [next(one) for _ in range(200)] == [next(two) for _ in range(200)]


def test_the_base_never_sees_the_form_of_the_answers() -> None:
    documents = grammar.documents(42)
    assert not any('{"name":' in "".join(next(documents)) for _ in range(5000))


def test_the_assets_are_small() -> None:
    assert (
        sum(path.stat().st_size for path in HOME.rglob("*") if path.is_file() and "__pycache__" not in path.parts) <= 4_000_000
    )


def test_the_base_is_small() -> None:
    from smolora_core.model.header import read_header

    assert sum(math.prod(shape) for shape in read_header(HOME / "base").shapes.values()) <= 2_000_000


def test_pretraining_lowers_the_loss_and_is_repeatable() -> None:
    from smolora_plugins.demo import pretrain

    def losses(steps: int) -> float:
        tokenizer = pretrain.make_tokenizer(seed=1, vocab_size=300, sample=200)
        return pretrain.pretrain(pretrain.make_model(tokenizer, seed=1), tokenizer, steps, seed=1)

    assert losses(6) == losses(6) < losses(1)


def test_rows_are_printed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--rows"]) == 0
    assert "eval: 64 rows" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_teaches_the_form(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    before, after = map(int, re.search(r"exact match +(\d+) / 64 before +→ +(\d+) / 64 after", out).groups())
    assert before <= 3
    assert after >= 52
    assert (tmp_path / "smolora-demo" / "adapter" / "adapter_config.json").is_file()
    assert "next     smolora generate smolora-demo/adapter" in out
