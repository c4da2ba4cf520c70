"""Row shapes: which columns are read, and what is said of a row that cannot be."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolora_core.config import DataConfig
from smolora_core.data.formats import FORMATS, Example, Shape, detect_shape, peek_shape
from smolora_core.data.formats.conversation import Conversation
from smolora_core.data.sources.located import Located
from smolora_core.errors import ConfigError, DatasetError, Problem

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
        ({}, ("instruction", "input", "output"), "instruction", ("instruction", "output")),
        ({}, ("instruction", "output", "text"), "instruction", ("instruction", "output")),
        ({}, ("messages", "source"), "messages", ("messages",)),
        ({}, ("id", "conversations"), "messages", ("conversations",)),
        ({}, ("text", "prompt", "conversations", "messages"), "messages", ("messages",)),
        ({"format": "text"}, ("text", "messages"), "text", ("text",)),
        ({"format": "messages"}, ("text", "conversations"), "messages", ("conversations",)),
        ({"messages_field": "turns"}, ("text", "messages", "turns"), "messages", ("turns",)),
        ({"text_field": "review"}, ("messages", "review"), "text", ("review",)),
        ({"input_field": "about"}, ("text", "instruction", "output"), "instruction", ("instruction", "output")),
        ({"text_field": "a", "completion_field": "b"}, ("a", "b", "prompt"), "prompt-completion", ("prompt", "b")),
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
        ({"format": "messages"}, "rows.jsonl:1 has no column 'messages'; it has: question, answer"),
        (
            {"prompt_field": "question", "completion_field": "answers"},
            "rows.jsonl:1 has no column 'answers'; did you mean 'answer'? it has: question, answer",
        ),
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
        ({"text": None}, "column 'text' must be text, got null"),
        ({"text": 3}, "column 'text' must be text, got int 3"),
        ({"text": ["a"]}, "column 'text' must be text, got list ['a']"),
        ({"text": " \n"}, "column 'text' has nothing to train on"),
        ({"text": "x\ud800"}, "column 'text' contains a lone surrogate, '\\ud800'"),
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
        (None, "null"),
        ([1], "list [1]"),
        (float("nan"), "float nan"),
        (float("-inf"), "float -inf"),
        (10**400, f"int 1{'0' * 36}..."),
    ],
    ids=["null", "list", "nan", "infinity", "too large"],
)
def test_a_column_of_the_loss_holds_finite_numbers_only(value: object, found: str) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl"), ("text", "weight"), WHERE, extra=("weight",))
    assert str(shape.read({"text": "good", "weight": value}, "rows.jsonl:7")) == (
        f"rows.jsonl:7 column 'weight' must be a finite number, got {found}; set data.on_bad_row to drop"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("prompt", "reply"), "has no column 'completion'; it has: prompt, reply"),
        (("instructions", "output"), "has no column 'instruction'; did you mean 'instructions'? it has: instructions, output"),
    ],
)
def test_what_a_row_nearly_has_is_what_was_meant(columns: tuple, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        detect_shape(DataConfig(train="rows.jsonl"), columns, WHERE)
    assert str(caught.value) == f"rows.jsonl:1 {message}"


LABELLED = ("labelled",)


@pytest.mark.parametrize(
    ("settings", "columns", "read"),
    [
        ({}, ("text", "label"), ("text", "label")),
        ({}, ("text", "labels"), ("text", "labels")),
        ({"text_field": "review", "label_field": "stars"}, ("review", "stars"), ("review", "stars")),
        ({"label_field": ("good", "long")}, ("text", "good", "long"), ("text", "good", "long")),
        ({"format": "labelled"}, ("text", "label"), ("text", "label")),
    ],
)
def test_labels_are_read_for_a_task_that_learns_from_them(settings: dict, columns: tuple, read: tuple) -> None:
    shape = detect_shape(DataConfig(train="rows.jsonl", **settings), columns, WHERE, formats=LABELLED)
    assert (shape.name, shape.columns) == ("labelled", read)


@pytest.mark.parametrize(
    ("settings", "formats", "message"),
    [
        ({"format": "labelled"}, FORMATS, "data.format is 'labelled', but the task does not accept labelled rows"),
        ({"label_field": "stars"}, FORMATS, "data.label_field is set, but the task does not accept labelled rows"),
        ({"prompt_field": "q"}, LABELLED, "data.prompt_field is set, but the task does not accept prompt-completion rows"),
    ],
)
def test_a_shape_that_the_task_does_not_learn_from_is_refused(settings: dict, formats: tuple, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        detect_shape(DataConfig(train="rows.jsonl", **settings), ("text", "stars"), WHERE, formats=formats)
    assert str(caught.value) == f"{message}; it accepts: {', '.join(formats)}"


def test_a_shape_says_which_columns_it_leaves_alone() -> None:
    columns = ("id", "text", "messages", "tools", "weight")
    shape = detect_shape(DataConfig(train="rows.jsonl"), columns, WHERE, extra=("weight",))
    assert (shape.columns, shape.unread(columns)) == (("messages", "weight"), ("id", "text"))


def read(row: dict, **settings: Any) -> Example | Problem:
    return peek_shape(DataConfig(train="rows.jsonl", **settings), located(row)).read(row, WHERE)


TURNS = ({"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"})


def test_a_conversation_is_read_as_one() -> None:
    row = {"conversations": [{"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]}
    assert read(row) == Example("", None, {}, Conversation(TURNS, (False, True)))


def test_prompt_and_completion_may_be_conversations() -> None:
    row = {"prompt": [TURNS[0]], "completion": [TURNS[1]]}
    assert read(row) == Example("", None, {}, Conversation(TURNS, (False, True)))
    shape = peek_shape(DataConfig(train="rows.jsonl", format="prompt-completion"), located(row))
    assert (shape.name, shape.columns) == ("messages", ("prompt", "completion"))


def test_a_task_without_conversations_is_not_given_any() -> None:
    row = {"prompt": [TURNS[0]], "completion": [TURNS[1]]}
    shape = peek_shape(DataConfig(train="rows.jsonl"), located(row), formats=("prompt-completion",))
    assert "must be text, got list" in str(shape.read(row, WHERE))


def test_prompt_and_completion_are_both_texts_or_both_conversations() -> None:
    assert str(read({"prompt": "why?", "completion": [TURNS[1]]})).startswith(
        "rows.jsonl:1 column 'completion' must be text, got list"
    )


@pytest.mark.parametrize("about", [{}, {"input": ""}, {"input": None}])
def test_an_instruction_has_turns_and_a_plain_form(about: dict) -> None:
    turns = ({"role": "user", "content": "sum up"}, {"role": "assistant", "content": "good"})
    row = {"instruction": "sum up", "output": "good", **about}
    assert read(row) == Example("good", "sum up\n\n", {}, Conversation(turns, (False, True)))


def test_an_instruction_may_be_about_something() -> None:
    example = read({"instruction": "sum up", "input": "it was", "output": "good"})
    assert isinstance(example, Example) and example.conversation is not None
    assert example.prompt == "sum up\n\nit was\n\n"
    assert example.conversation.messages[0]["content"] == "sum up\n\nit was"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"instruction": "sum up", "output": " "}, "column 'output' has nothing to train on"),
        ({"instruction": 3, "output": "good"}, "column 'instruction' must be text, got int 3"),
        ({"instruction": "sum up", "input": 3, "output": "good"}, "column 'input' must be text, got int 3"),
        ({"messages": "why?"}, "column 'messages' must be a list of messages, got str 'why?'"),
    ],
)
def test_a_row_of_another_shape_that_cannot_be_read_is_a_problem_too(row: dict, what: str) -> None:
    problem = read(row)
    assert isinstance(problem, Problem)
    assert (problem.where, problem.what) == (WHERE, what)


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("good", None),
        (3, None),
        (True, None),
        (["a", "b"], None),
        ([], None),
        (None, "column 'label' must be text, a number, or a list of them, got null"),
        (float("nan"), "column 'label' must be text, a number, or a list of them, got float nan"),
        ([{}], "column 'label' must be text, a number, or a list of them, got list [{}]"),
    ],
)
def test_a_label_is_a_text_a_number_or_a_list(label: Any, problem: str | None) -> None:
    found = Shape("labelled", ("text", "label")).read({"text": "fine", "label": label}, WHERE)
    assert (found.what if isinstance(found, Problem) else None) == problem
    assert isinstance(found, Problem) or found.labels == (label,)


def test_a_digest_is_the_same_for_the_same_row_and_in_every_process() -> None:
    row = {"messages": [{"content": "why?", "role": "user"}, {"from": "gpt", "value": "so"}]}
    example = read(row)
    assert isinstance(example, Example)
    assert example.digest() == Example("", None, {"weight": 2.0}, Conversation(TURNS, (False, True))).digest()
    code = "from smolora_core.data.formats.shapes import Example; print(Example('so', 'why?').digest())"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(again.stdout) == Example("so", "why?").digest()


texts = st.text(max_size=3)


@given(first=st.tuples(st.none() | texts, texts), second=st.tuples(st.none() | texts, texts))
def test_digests_differ_where_rows_differ_and_fit_in_64_bits(first: tuple, second: tuple) -> None:
    digests = [Example(text, prompt).digest() for prompt, text in (first, second)]
    assert (digests[0] == digests[1]) == (first == second)
    assert all(-(2**63) <= digest < 2**63 for digest in digests)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=2),
    max_leaves=6,
)
names = st.sampled_from(
    ["text", "prompt", "completion", "instruction", "input", "output", "messages", "conversations", "tools", "label"]
)


@given(row=st.dictionaries(names, values, max_size=5), formats=st.sampled_from([FORMATS, LABELLED, (*FORMATS, *LABELLED)]))
@settings(max_examples=300, deadline=None)
def test_whatever_a_row_holds_is_an_example_or_a_problem(row: dict, formats: tuple) -> None:
    try:
        shape = peek_shape(DataConfig(train="rows.jsonl"), located(row), formats=formats)
    except DatasetError:
        return
    assert isinstance(shape.read(row, WHERE), Example | Problem)


def test_reading_rows_needs_no_torch() -> None:
    code = "import sys, smolora_core.data.formats as f; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


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
