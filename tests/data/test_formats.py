"""Row shapes: which columns are read, and what is said of a row that cannot be."""

import pytest

from smolora_core.config import DataConfig
from smolora_core.data.formats import Example, detect_shape, peek_shape
from smolora_core.data.rows import Located
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
        ({"text": "x\ud800"}, "column 'text' holds '\\ud800', half of a character"),
        ({"review": "good"}, "has no column 'text'"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_problem_at_its_place(row: dict, what: str) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl"), ("text",), WHERE)
    problem = shape.read(row, "rows.jsonl:7")
    assert isinstance(problem, Problem)
    assert (problem.where, problem.what) == ("rows.jsonl:7", what)


@pytest.mark.parametrize(
    ("value", "number"), [(2, 2.0), (True, 1.0), (0.5, 0.5)], ids=["a whole number", "true or false", "a fraction"]
)
def test_a_column_of_the_loss_is_read_as_float(value: object, number: float) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl"), ("text", "weight"), WHERE, extra=("weight",))
    example = shape.read({"text": "good", "weight": value}, WHERE)
    assert isinstance(example, Example)
    assert (example.columns, type(example.columns["weight"])) == ({"weight": number}, float)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "empty"),
        ("2", "str '2'"),
        ([1], "list [1]"),
        (float("nan"), "float nan"),
        (float("-inf"), "float -inf"),
        (10**400, f"int 1{'0' * 36}..."),
    ],
    ids=["null", "text", "list", "nan", "infinity", "too large"],
)
def test_a_column_of_the_loss_holds_finite_numbers_only(value: object, found: str) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl"), ("text", "weight"), WHERE, extra=("weight",))
    assert str(shape.read({"text": "good", "weight": value}, "rows.jsonl:7")) == (
        f"rows.jsonl:7 column 'weight' must be a finite number, is {found}; set data.on_bad_row to drop"
    )


def located(*rows: dict) -> list[Located]:
    return [Located(row, f"rows.jsonl:{number}") for number, row in enumerate(rows, start=1)]


def test_where_bad_rows_are_dropped_the_first_may_be_one_of_them() -> None:
    rows = located({"review": "good"}, {"text": "good"})
    assert peek_shape(DataConfig(train="rows.jsonl", on_bad_row="drop"), rows).columns == ("text",)


def test_where_bad_rows_are_dropped_most_rows_say_the_shape() -> None:
    pair = {"prompt": "why", "completion": "so"}
    rows = located({"text": "good"}, pair, pair)
    assert peek_shape(DataConfig(train="rows.jsonl", on_bad_row="drop"), rows).name == "prompt-completion"


def test_where_bad_rows_are_errors_the_first_row_says_the_shape() -> None:
    rows = located({"prompt": "why", "completion": "so"}, {"text": "good"}, {"text": "bad"})
    assert peek_shape(DataConfig(train="rows.jsonl"), rows).name == "prompt-completion"


@pytest.mark.parametrize(("on_bad_row", "columns"), [("error", "review"), ("drop", "review, stars")])
def test_a_column_that_no_row_has_is_missed_in_the_first(on_bad_row: str, columns: str) -> None:
    rows = located({"review": "good"}, {"review": "bad", "stars": 1})
    with pytest.raises(DatasetError) as caught:
        peek_shape(DataConfig(train="rows.jsonl", on_bad_row=on_bad_row), rows)
    assert str(caught.value) == f"rows.jsonl:1 has no column 'text'; it has: {columns}"
