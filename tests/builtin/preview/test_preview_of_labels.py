"""`smolora data preview` shows what is learned of a text beside it."""

import json
from pathlib import Path

import pytest

from tests.support.models import save_encoder, save_t5

TEXT = "the film was good"
TOKENS = "[CLS] the film was good [SEP]"
CASES = [
    ("sequence-classification", {"text": TEXT, "label": "ham"}, "label", [TOKENS, "⟦label ham⟧"]),
    ("sequence-classification", {"text": TEXT, "label": ["x", "y"]}, "label", [TOKENS, '⟦label ["x", "y"]⟧']),
    ("regression", {"text": TEXT, "V": 3.5, "A": 2}, "[V, A]", [TOKENS, "⟦scores 3.5, 2.0⟧"]),
    ("token-classification", {"tokens": TEXT.split(), "tags": ["O", "B-x", "O", "O"]}, "tags", [TOKENS, "⟦tags O, B-x, O, O⟧"]),
    ("masked-lm", {"text": TEXT}, "label", [TOKENS]),
]


@pytest.mark.parametrize(("task", "row", "field", "shown"), CASES)
def test_labels_stand_below_the_text(place: Path, smolora, task, row, field, shown) -> None:
    save_encoder(place / "bert")
    (place / "reviews.jsonl").write_text(json.dumps(row) + "\n")
    label = [] if task == "masked-lm" else ["--data.label_field", field]
    status, out, err = smolora("data", "preview", "run.yaml", "--model", "./bert", "--task", task, *label)
    assert (status, err) == (0, "")
    assert out.split("\n\n")[0].splitlines()[1:] == shown
    assert out.startswith("sequence 1: 6 tokens\n") == (len(shown) > 1)


def test_the_answer_to_a_prompt_stands_below_it(place: Path, smolora) -> None:
    save_t5(place / "t5")
    (place / "reviews.jsonl").write_text('{"prompt": "was it good?", "completion": "not at all"}\n')
    _, out, _ = smolora("data", "preview", "run.yaml", "--model", "./t5")
    assert out.split("\n\n")[0].splitlines()[1:] == ["was it good?", "⟦answer not at all</s>⟧"]
