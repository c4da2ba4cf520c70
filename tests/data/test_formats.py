"""Row shapes: which columns are read, and what is said of a row that cannot be."""

import pytest

from smolora_core.config import DataConfig
from smolora_core.data.formats import Example, detect_shape
from smolora_core.errors import DatasetError, Problem

WHERE = "rows.jsonl:1"


@pytest.mark.parametrize(
    ("settings", "columns", "name", "read"),
    [
        ({}, ("text",), "text", ("text",)),
        ({}, ("prompt", "completion"), "prompt-completion", ("prompt", "completion")),
        ({}, ("text", "prompt", "completion"), "text", ("text",)),
        ({"format": "prompt-completion"}, ("text", "prompt", "completion"), "prompt-completion", ("prompt", "completion")),
        ({"text_field": "review"}, ("id", "review"), "text", ("review",)),
        (
            {"prompt_field": "question", "completion_field": "answer"},
            ("text", "question", "answer"),
            "prompt-completion",
            ("question", "answer"),
        ),
    ],
)
def test_the_shape_is_that_of_the_columns(settings: dict, columns: tuple, name: str, read: tuple) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl", **settings), columns, WHERE)
    assert (shape.name, shape.columns) == (name, read)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "rows.jsonl:1 has no column 'text'; it has: question, answer"),
        ({"text_field": "review"}, "rows.jsonl:1 has no column 'review'; it has: question, answer"),
        ({"prompt_field": "question"}, "rows.jsonl:1 has no column 'completion'; it has: question, answer"),
        ({"format": "prompt-completion"}, "rows.jsonl:1 has no column 'prompt'; it has: question, answer"),
    ],
)
def test_a_missing_column_is_named_with_those_that_are_there(settings: dict, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        detect_shape(DataConfig(train="rows.jsonl", **settings), ("question", "answer"), WHERE)
    assert str(caught.value) == message


def test_a_column_that_the_loss_needs_must_be_there() -> None:
    with pytest.raises(DatasetError, match="has no column 'weight'; it has: text"):
        detect_shape(DataConfig(train="rows.jsonl"), ("text",), WHERE, extra=("weight",))


def test_an_example_carries_the_columns_of_the_loss() -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl"), ("text", "weight"), WHERE, extra=("weight",))
    assert shape.read({"text": "good", "weight": 2, "id": 7}, WHERE) == Example("good", None, {"weight": 2})


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"text": None}, "column 'text' must be text, is empty"),
        ({"text": 3}, "column 'text' must be text, is int 3"),
        ({"text": ["a"]}, "column 'text' must be text, is list ['a']"),
        ({"text": " \n"}, "column 'text' has nothing to train"),
        ({"review": "good"}, "has no column 'text'"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_problem_at_its_place(row: dict, what: str) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl"), ("text",), WHERE)
    problem = shape.read(row, "rows.jsonl:7")
    assert isinstance(problem, Problem)
    assert (problem.where, problem.what) == ("rows.jsonl:7", what)
