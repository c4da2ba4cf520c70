"""The mistakes a newcomer makes, and the line each of them gets: before torch is imported, with exit status 2."""

from pathlib import Path

import pytest

MISTAKES = {
    "misspelt config key": (
        {"run.yaml": "model: ./tiny\ndata:\n  train: reviews.jsonl\n  max_lenght: 5\n"},
        "run.yaml:4 unknown key 'max_lenght' in data; did you mean 'max_seq_length'?",
    ),
    "wrong column": (
        {"reviews.jsonl": '{"review": "good", "stars": 4}\n'},
        "reviews.jsonl:1 has no column 'text'; it has: review, stars",
    ),
    "empty file": ({"reviews.jsonl": ""}, "reviews.jsonl has no rows"),
    "broken JSON line": (
        {"reviews.jsonl": '{"text": "good"}\n{"text": "bad" "stars": 1}\n'},
        "reviews.jsonl:2:16 is not JSON (Expecting ',' delimiter)",
    ),
    "text that is null": (
        {"reviews.jsonl": '{"text": "good"}\n{"text": null}\n'},
        "reviews.jsonl:2 column 'text' must be text, got null; set data.on_bad_row to drop",
    ),
    "text that is a number": (
        {"reviews.jsonl": '{"text": 4}\n'},
        "reviews.jsonl:1 column 'text' must be text, got int 4; set data.on_bad_row to drop",
    ),
    "missing data file": (
        {"run.yaml": "model: ./tiny\ndata:\n  train: reviewz.jsonl\n"},
        "run.yaml:3 no file 'reviewz.jsonl'; did you mean 'reviews.jsonl'?",
    ),
    "missing model folder": (
        {"run.yaml": "model: ./tinyy\ndata: {train: reviews.jsonl}\n"},
        "run.yaml:1 no folder './tinyy' with a config.json; did you mean './tiny'?",
    ),
    "one of several targets misspelt": (
        {"run.yaml": "model: ./tiny\ndata: {train: reviews.jsonl}\nlora: {target_modules: [v_proj, q_porj]}\n"},
        "run.yaml:3 no layer is named 'q_porj'; did you mean 'q_proj'?",
    ),
    "unknown loss": (
        {"run.yaml": "model: ./tiny\ndata: {train: reviews.jsonl}\nloss: cross-entrpy\n"},
        "run.yaml:3 no loss is named 'cross-entrpy'; did you mean 'cross-entropy'?",
    ),
    "option of a loss that has none": (
        {"run.yaml": "model: ./tiny\ndata: {train: reviews.jsonl}\nloss: {name: cross-entropy, gamma: 2}\n"},
        "run.yaml:3 'cross-entropy' (smolora 0.1.0) takes no options, got 'gamma'",
    ),
    "unknown Trainer argument": (
        {"run.yaml": "model: ./tiny\ndata: {train: reviews.jsonl}\ntraining:\n  extra: {warmup_step: 10}\n"},
        "run.yaml:4 transformers.TrainingArguments has no 'warmup_step'; did you mean 'warmup_steps'?",
    ),
    "value of a wrong type": (
        {"run.yaml": "model: ./tiny\ndata: {train: reviews.jsonl}\nlora: {r: 8.5}\n"},
        "run.yaml:3 lora.r must be an integer, got 8.5",
    ),
}


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(("files", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_its_line(place: Path, smolora, command: str, files: dict[str, str], line: str) -> None:
    for name, content in files.items():
        (place / name).write_text(content)
    status, _, err = smolora(command, "run.yaml")
    assert (status, err.strip()) == (2, line)
    assert not (place / "out").exists()


def test_all_problems_are_reported_together(place: Path, smolora) -> None:
    (place / "reviews.jsonl").write_text('{"review": "good"}\n')
    (place / "run.yaml").write_text(
        "model: ./tiny\ndata: {train: reviews.jsonl}\nloss: focl\nlora: {target_modules: [q_porj]}\n"
    )
    status, _, err = smolora("check", "run.yaml")
    assert status == 2
    assert err.splitlines() == [
        "run.yaml:3 no loss is named 'focl'; did you mean 'focal'?",
        "run.yaml:4 no layer is named 'q_porj'; did you mean 'q_proj'?",
        "reviews.jsonl:1 has no column 'text'; it has: review",
    ]


def test_a_missing_config_names_those_that_are_there(place: Path, smolora) -> None:
    status, _, err = smolora("train", "rum.yaml")
    assert (status, err.strip()) == (2, "no file 'rum.yaml'; did you mean 'run.yaml'?")


def test_a_flag_is_where_its_problem_is(place: Path, smolora) -> None:
    status, _, err = smolora("check", "run.yaml", "--lora.r", "many")
    assert (status, err.strip()) == (2, "--lora.r lora.r must be an integer, got 'many'")


def test_an_unknown_command_names_the_known(smolora) -> None:
    status, _, err = smolora("trian")
    assert status == 2
    assert 'Unknown command "trian"' in err
    assert "train" in err


def test_rows_without_anything_to_train_are_refused(place: Path, smolora) -> None:
    (place / "reviews.jsonl").write_text('{"text": "  "}\n{"text": ""}\n')
    status, _, err = smolora("train", "run.yaml", "--data.on_bad_row", "drop")
    assert status == 2
    assert err.strip() == "0 trainable tokens in 2 rows; 2 rows: read: column 'text' has nothing to train on"


def test_prompts_longer_than_a_sequence_are_counted(place: Path, smolora) -> None:
    (place / "reviews.jsonl").write_text('{"prompt": "the film was good and long and", "completion": "bad"}\n')
    status, _, err = smolora("train", "run.yaml", "--data.max_seq_length", "4")
    assert status == 2
    assert (
        err.strip() == "0 trainable tokens in 1 rows; 1 rows: encode: the prompt fills data.max_seq_length 4 (the longest: 11)"
    )
