"""`smolora data preview`: rows as the model sees them, what was guessed, and what was dropped."""

import json
from pathlib import Path


def test_supervised_tokens_stand_in_brackets_where_there_are_no_colours(place: Path, smolora) -> None:
    (place / "reviews.jsonl").write_text('{"prompt": "was it good?", "completion": " not at all", "stars": 1}\n')
    status, out, err = smolora("data", "preview", "run.yaml")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1] == "was it good?⟦ not at all</s>⟧"
    assert lines[3] == "rows     prompt-completion: prompt, completion"
    assert lines[-1] == "next     smolora train run.yaml"


def test_it_shows_as_many_sequences_as_asked_for_and_what_was_dropped_on_the_way(place: Path, smolora) -> None:
    rows = [{"text": "the cat"}, {"text": ""}, {"text": "a film"}, {"text": "we"}]
    (place / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, out, _ = smolora("data", "preview", "run.yaml", "--count", "2", "--data.on_bad_row", "drop")
    assert [line for line in out.splitlines() if line.startswith("sequence")] == [
        "sequence 1: 2 of 3 tokens supervised",
        "sequence 2: 3 of 4 tokens supervised",
    ]
    assert "dropped  1 of 4 rows read: read: column 'text' has nothing to train on" in out


def test_a_conversation_without_a_template_is_written_plainly_and_said_so(place: Path, smolora) -> None:
    turns = [{"role": "user", "content": "who sat on the mat?"}, {"role": "assistant", "content": "a cat"}]
    (place / "reviews.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    _, out, _ = smolora("data", "preview", "run.yaml")
    assert "Assistant:⟦ a cat</s>⟧" in out
    assert "note     the tokenizer has no chat template, using plain turns after 'User:' and 'Assistant:'" in out


def test_json_holds_the_pieces_of_each_sequence(place: Path, smolora) -> None:
    (place / "reviews.jsonl").write_text('{"prompt": "why?", "completion": " not"}\n')
    _, out, _ = smolora("data", "preview", "run.yaml", "--json")
    found = json.loads(out)
    assert [(piece["text"], piece["supervised"]) for piece in found["sequences"][0]["pieces"]] == [
        ("why?", False),
        (" not</s>", True),
    ]
    assert found["ledger"]["read"] == 1


def test_it_writes_nothing(place: Path, smolora) -> None:
    (place / "reviews.jsonl").write_text('{"text": "the cat"}\n')
    before = sorted(place.rglob("*"))
    smolora("data", "preview", "run.yaml")
    assert sorted(place.rglob("*")) == before
