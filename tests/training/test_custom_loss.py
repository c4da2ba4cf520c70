"""The loss that docs/how-to/write-a-loss.md writes trains from the command line, and is its formula."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from smolora_core.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "write-a-loss.md").read_text(encoding="utf-8")
TEXTS = ["the film was good and we liked it", "the film was long", "why was it bad", "a cat sat on the mat"]
WEIGHTS = [2.0, 0.5, 1.0, 4.0]


def block(language, after):
    """The first code block of a language below a text."""
    return re.search(rf"^```{language}\n(.*?)^```", PAGE[PAGE.index(after) :], re.M | re.S)[1]


COMMAND = shlex.split(block("console", "`run.yaml`:"))[2:]
SHORT = shlex.split(
    "--model.dtype float32 --data.eval rows.jsonl --training.max_steps 4 --training.gradient_accumulation_steps 1"
)


@pytest.fixture
def place(tmp_path, llama, monkeypatch):
    """A folder with the files of the page, but for the rows."""
    shutil.copytree(llama, tmp_path / "models" / "tiny")
    (tmp_path / "my_loss.py").write_text(block("python", "`my_loss.py`:"))
    (tmp_path / "run.yaml").write_text(block("yaml", "`run.yaml`:"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(place, weights, *flags):
    """Train for some steps; return the loss before and after."""
    rows = [{"text": text, "weight": weight} for text, weight in zip(TEXTS, weights, strict=True)]
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([*COMMAND, *SHORT, *flags]) == 0
    events = [json.loads(line) for line in Path("runs/smolora/events.jsonl").read_text(encoding="utf-8").splitlines()]
    finished = next(event for event in events if event["event"] == "finished")
    return finished["eval_loss_before"], finished["eval_loss"]


def formula(model, weights, gamma):
    """The page's loss of the untrained model, row by row in double precision."""
    base = transformers.AutoModelForCausalLM.from_pretrained(model).double()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    values = []
    for text, weight in zip(TEXTS, weights, strict=True):
        ids = torch.tensor([[*tokenizer(text).input_ids, tokenizer.eos_token_id]])
        with torch.no_grad():
            p = base(input_ids=ids).logits[0, :-1].softmax(-1).gather(-1, ids[0, 1:, None])
        values += (-weight * (1 - p) ** gamma * p.log()).flatten().tolist()
    return sum(values) / len(values)


def test_the_pages_command_trains_with_the_pages_loss(place):
    assert COMMAND == ["train", "run.yaml", "--plugin", "my_loss.py", "--loss", "my-loss", "--loss.gamma", "2"]
    before, after = train(place, WEIGHTS)
    assert before == pytest.approx(formula("models/tiny", WEIGHTS, 2), rel=1e-5)
    assert after < before


@pytest.mark.parametrize(("gamma", "weights"), [(0.5, WEIGHTS), (2, [1, 1, 1, 1]), (2, [1, 0, 3, 0])])
def test_the_option_and_the_column_change_the_loss_as_the_formula_says(place, gamma, weights):
    before, _ = train(place, weights, "--loss.gamma", str(gamma))
    assert before == pytest.approx(formula("models/tiny", weights, gamma), rel=1e-5)


def test_rows_without_the_column_are_refused(place, capsys):
    (place / "rows.jsonl").write_text('{"text": "the film was good"}\n' * 4)
    assert main(COMMAND) == 2
    assert capsys.readouterr().err == "rows.jsonl:1 has no column 'weight'; it has: text\n"
