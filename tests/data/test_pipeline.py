"""The way of a row, with its account: rows in equal rows out plus ledger, and labels are exactly what is trained."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import transformers
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from smolora_core import Drop, Preprocessor, Task
from smolora_core.config import DataConfig
from smolora_core.data.pipeline import PreparedRows, Recipe, prepare
from smolora_core.data.preprocess import Context, Step
from smolora_core.data.sources.located import Located
from smolora_core.errors import DatasetError
from smolora_core.plugins import Origin, PluginManager, Registered, Tier, build

TASK = build(PluginManager.create().registry.resolve(Task, "causal-lm"))


@pytest.fixture(scope="module")
def tokenizer(llama: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(llama)


def reader(rows: list[dict[str, Any]]) -> Callable[[Any], Iterator[Located]]:
    return lambda on_bad: (Located(row, f"rows.jsonl:{number}") for number, row in enumerate(rows, start=1))


def step(run: Callable[..., Any], scope: str = "row") -> Step:
    record = Preprocessor(name=run.__name__.replace("_", "-"), summary="a step", implementation=run, scope=scope)
    return Step(Registered(record, Origin("mine", Tier.USER)), run)


def recipe(tokenizer: Any, *steps: Step, further: dict[str, Any] | None = None, **config: Any) -> Recipe:
    formats = ("text", "prompt-completion", "instruction", "messages")
    section = DataConfig(train="rows.jsonl", **config)
    return Recipe(config=section, make_steps=lambda: steps, task=TASK, formats=formats, tokenizer=tokenizer, **(further or {}))


def prepared(rows: list[dict[str, Any]], tokenizer: Any, *steps: Step, **config: Any) -> PreparedRows:
    return prepare(reader(rows), recipe(tokenizer, *steps, **config))


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        prepared(*arguments, **named)
    return str(caught.value)


def half(dataset: Dataset, context: Any) -> Dataset:
    return dataset.select(range(len(dataset) // 2))


def spans(row: dict[str, Any], tokenizer: Any) -> tuple[str, str]:
    """What of a sequence is not supervised, and what is, as text."""
    pairs = list(zip(row["input_ids"], row["labels"], strict=True))
    return (
        tokenizer.decode([token for token, label in pairs if label == -100]),
        tokenizer.decode([token for token, label in pairs if label != -100]),
    )


def adds_up(ledger: Any) -> bool:
    return ledger.read + ledger.added == ledger.kept + ledger.dropped


def test_only_the_completion_is_supervised_and_its_end_is_learned(tokenizer: Any) -> None:
    found = prepared([{"prompt": "who sat on the mat?", "completion": " a cat"}], tokenizer)
    assert spans(found.dataset[0], tokenizer) == ("who sat on the mat?", " a cat</s>")


def test_the_prompt_has_the_tokens_it_has_alone(tokenizer: Any) -> None:
    alone, together = (tokenizer(text)["input_ids"] for text in ("the fil", "the film"))
    assert together[: len(alone)] != alone
    found = prepared([{"prompt": "the fil", "completion": "m"}], tokenizer)
    assert found.dataset[0]["input_ids"][: len(alone)] == alone
    assert spans(found.dataset[0], tokenizer) == ("the fil", "m</s>")


def test_a_text_is_supervised_whole_but_for_its_first_token(tokenizer: Any) -> None:
    row = prepared([{"text": "the film was good"}], tokenizer).dataset[0]
    assert row["labels"][1:] == row["input_ids"][1:]
    assert row["labels"][0] == -100


def test_a_long_text_is_split_and_every_token_is_learned_once(tokenizer: Any) -> None:
    text = "the film was good and long and bad and short and we liked it"
    found = prepared([{"text": text}], tokenizer, max_seq_length=7)
    whole = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    learned = [label for row in found.dataset for label in row["labels"] if label != -100]
    assert learned == whole[1:]
    assert all(len(row["input_ids"]) <= 7 for row in found.dataset)
    assert (found.ledger.kept, found.ledger.sequences, found.ledger.tokens_lost) == (1, len(found.dataset), 0)


def test_a_long_completion_is_cut_and_counted(tokenizer: Any) -> None:
    row = {"prompt": "the film", "completion": " was good and long and bad and short"}
    found = prepared([row], tokenizer, max_seq_length=6)
    whole = len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) + 1
    assert (found.ledger.truncated, found.ledger.tokens_lost) == (1, whole - 6)


def test_a_prompt_that_leaves_no_room_is_dropped_with_its_reason(tokenizer: Any) -> None:
    rows = [{"prompt": "the film was good and long", "completion": "yes"}, {"prompt": "why", "completion": "not"}]
    found = prepared(rows, tokenizer, max_seq_length=5)
    assert found.ledger.as_dict()["dropped"] == [
        {
            "step": "encode",
            "reason": "the prompt fills data.max_seq_length 5",
            "rows": 1,
            "lost": True,
            "largest": 10,
            "samples": ["rows.jsonl:1"],
        }
    ]
    assert adds_up(found.ledger)


def test_steps_run_in_order_and_their_drops_are_counted(tokenizer: Any) -> None:
    def only_good(row: dict[str, Any]) -> Any:
        return row if "good" in row["text"] else Drop("not good")

    def doubled(row: dict[str, Any]) -> Any:
        return [row, {**row, "text": row["text"] + " again"}]

    rows = [{"text": "good"}, {"text": "bad"}, {"text": "so good"}]
    found = prepared(rows, tokenizer, step(only_good), step(doubled))
    assert (found.ledger.read, found.ledger.added, found.ledger.kept) == (3, 2, 4)
    assert found.ledger.reasons == {"only-good: not good": 1}
    assert adds_up(found.ledger)


def test_none_and_an_empty_list_are_drops(tokenizer: Any) -> None:
    def odd(row: dict[str, Any]) -> Any:
        return {"a": None, "b": []}.get(row["text"], row)

    found = prepared([{"text": "a"}, {"text": "b"}, {"text": "c"}], tokenizer, step(odd))
    assert found.ledger.reasons == {"odd: dropped": 1, "odd: returned no rows": 1}
    assert adds_up(found.ledger)


def test_a_dataset_step_gets_a_dataset(tokenizer: Any) -> None:
    found = prepared([{"text": f"good {number}"} for number in range(6)], tokenizer, step(half, "dataset"))
    assert (found.ledger.kept, found.ledger.dropped) == (3, 3)
    assert adds_up(found.ledger)


def test_a_dataset_step_gets_the_columns_of_every_row(tokenizer: Any) -> None:
    seen = {}

    def look(dataset: Dataset, context: Any) -> Dataset:
        seen.update(dataset.to_dict())
        return dataset

    prepared([{"text": "good"}, {"text": "bad", "stars": 1}], tokenizer, step(look, "dataset"))
    assert seen == {"text": ["good", "bad"], "stars": [None, 1]}


@pytest.mark.parametrize("values", [(1, "x"), ("x", 1), (None, 1, True)])
def test_a_column_of_different_types_is_named_before_a_dataset_step(tokenizer: Any, values: tuple[Any, ...]) -> None:
    rows = [{"text": "good", "label": value} for value in values]
    assert refusal(rows, tokenizer, step(half, "dataset")) == (
        "preprocessor 'half' (mine) needs the rows as a dataset, but column 'label' has values of different types"
    )


def test_a_value_that_no_dataset_can_hold_comes_with_the_reason_of_arrow(tokenizer: Any) -> None:
    rows = [{"text": "good", "label": 2**70}]
    expected = "preprocessor 'half' (mine) needs the rows as a dataset, but column 'label' cannot be stored in a dataset ("
    assert refusal(rows, tokenizer, step(half, "dataset")).startswith(expected)


def test_a_dataset_step_is_told_of_the_tokenizer_the_length_and_the_seed(tokenizer: Any) -> None:
    told = []

    def listen(dataset: Dataset, context: Context) -> Dataset:
        told.append(context)
        return dataset

    prepared([{"text": "good"}], tokenizer, step(listen, "dataset"), max_seq_length=9, further={"seed": 7})
    assert told == [Context(tokenizer, max_seq_length=9, seed=7)]


def test_a_row_that_no_dataset_can_hold_is_dropped_before_a_dataset_step(tokenizer: Any) -> None:
    def same(dataset: Dataset, context: Any) -> Dataset:
        return dataset

    rows = [{"text": "good", "note": "\ud800"}, {"text": "bad", "note": ""}]
    found = prepared(rows, tokenizer, step(same, "dataset"), on_bad_row="drop")
    assert found.ledger.reasons == {r"same: column 'note' contains a lone surrogate, '\ud800'": 1}
    assert adds_up(found.ledger)


def test_half_of_a_character_that_a_step_makes_is_an_error_of_the_row(tokenizer: Any) -> None:
    def cut(row: dict[str, Any]) -> Any:
        return {"text": row["text"].encode("utf-16-be", "surrogatepass")[:2].decode("utf-16-be", "surrogatepass")}

    assert refusal([{"text": "a good film"}, {"text": "\U0001f600 good"}], tokenizer, step(cut)) == (
        r"rows.jsonl:2 column 'text' contains a lone surrogate, '\ud83d'; set data.on_bad_row to drop"
    )


def test_what_a_step_may_return_is_said_when_it_returns_something_else(tokenizer: Any) -> None:
    def wrong(row: dict[str, Any]) -> Any:
        return row["text"]

    with pytest.raises(DatasetError) as caught:
        prepared([{"text": "good"}], tokenizer, step(wrong))
    assert str(caught.value) == (
        "rows.jsonl:1 preprocessor 'wrong' (mine) returned str; return the row, None, Drop('reason') or a list of rows"
    )


def test_an_exception_of_a_step_keeps_its_type_and_says_whose_it_is(tokenizer: Any) -> None:
    def broken(row: dict[str, Any]) -> Any:
        return row["missing"]

    with pytest.raises(KeyError) as caught:
        prepared([{"text": "good"}], tokenizer, step(broken))
    assert caught.value.__notes__ == ["raised by plugin 'mine' (mine) while preprocessing rows.jsonl:1"]


def test_a_step_cannot_change_the_rows_of_the_source(tokenizer: Any) -> None:
    def greedy(row: dict[str, Any]) -> Any:
        row["text"] = "eaten"
        return row

    rows = [{"text": "good"}]
    prepared(rows, tokenizer, step(greedy))
    assert rows == [{"text": "good"}]


def test_dropping_every_row_is_an_error_that_says_who_did(tokenizer: Any) -> None:
    def nothing(row: dict[str, Any]) -> Any:
        return Drop("not today")

    with pytest.raises(DatasetError) as caught:
        prepared([{"text": "good"}, {"text": "bad"}], tokenizer, step(nothing))
    assert str(caught.value) == "no rows left of 2; 2 rows: nothing: not today"


def test_a_held_out_split_is_named_where_nothing_is_left(tokenizer: Any) -> None:
    assert refusal([{"text": " "}], tokenizer, on_bad_row="drop", further={"key": "data.eval"}) == (
        "data.eval: 0 trainable tokens in 1 rows; 1 rows: read: column 'text' has nothing to train on"
    )


def test_a_token_beyond_the_vocabulary_is_the_wrong_tokenizer(tokenizer: Any) -> None:
    largest = max(tokenizer("good")["input_ids"])
    rows = [{"text": "a"}, {"text": "good"}]
    assert max(tokenizer("a")["input_ids"]) < largest
    assert refusal(rows, tokenizer, further={"vocab_size": largest}) == (
        f"rows.jsonl:2 contains token id {largest}, but the model's vocabulary has size {largest}; "
        "does the tokenizer belong to this model?"
    )


def test_tokens_below_the_size_of_the_vocabulary_are_in_it(tokenizer: Any) -> None:
    assert prepared([{"text": "good"}], tokenizer, further={"vocab_size": len(tokenizer)}).ledger.kept == 1


def test_a_column_of_the_loss_has_one_type_in_every_batch(tokenizer: Any) -> None:
    rows = [{"text": "good", "weight": 1}] * 1000 + [{"text": "bad", "weight": 0.5}]
    found = prepared(rows, tokenizer, further={"extra": ("weight",)})
    assert found.dataset.features["weight"].dtype == "float64"
    assert found.dataset[999:]["weight"] == [1.0, 0.5]


def test_a_bad_value_for_the_loss_is_dropped_like_any_bad_row(tokenizer: Any) -> None:
    rows = [{"text": "good", "weight": "much"}, {"text": "bad", "weight": 1}]
    found = prepared(rows, tokenizer, on_bad_row="drop", further={"extra": ("weight",)})
    assert found.ledger.reasons == {"read: column 'weight' must be a finite number, got str 'much'": 1}


def test_first_rows_without_a_column_are_dropped(tokenizer: Any) -> None:
    found = prepared([{"review": "good"}, {"text": "good"}], tokenizer, on_bad_row="drop")
    assert (found.ledger.kept, found.ledger.reasons) == (1, {"read: has no column 'text'": 1})


def test_the_first_bad_row_is_the_one_reported(tokenizer: Any) -> None:
    def fails_later(row: dict[str, Any]) -> Any:
        return row if row["text"] != "bad" else row["missing"]

    assert refusal([{"text": " "}, {"text": "bad"}], tokenizer, step(fails_later)) == (
        "rows.jsonl:1 column 'text' has nothing to train on; set data.on_bad_row to drop"
    )


@given(rows=st.lists(st.fixed_dictionaries({"text": st.none() | st.text() | st.integers()}), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_rows_in_equal_rows_out_plus_ledger(rows: list[dict[str, Any]], tokenizer: Any) -> None:
    # One good row, so that something is left to train on.
    ledger = prepared([*rows, {"text": "the film was good"}], tokenizer, on_bad_row="drop").ledger
    assert ledger.read == len(rows) + 1
    assert adds_up(ledger)


def balances(ledger: Any) -> bool:
    """Whether each step gave what it took, but for what the ledger says it dropped and added."""
    account = ledger.as_dict()
    dropped = {entry["step"]: 0 for entry in account["dropped"]}
    for entry in account["dropped"]:
        dropped[entry["step"]] += entry["rows"]
    lost = sum(each["rows_in"] - dropped.get(each["step"], 0) - each["rows_out"] for each in account["steps"])
    return lost == -account["added"]


def test_the_ledger_says_what_each_step_took_and_gave(tokenizer: Any) -> None:
    def twice(row: dict[str, Any]) -> Any:
        return Drop("short", size=len(row["text"])) if len(row["text"]) < 4 else [row, row]

    found = prepared([{"text": text} for text in ("the cat", "a", "film", "on")], tokenizer, step(twice))
    assert found.ledger.as_dict()["steps"] == [
        {"step": "twice", "rows_in": 4, "rows_out": 4, "dropped": 2, "added": 2},
        {"step": "encode", "rows_in": 4, "rows_out": 4, "dropped": 0, "added": 0},
    ]
    assert found.ledger.reasons == {"twice: short (the longest: 2)": 2}
    assert adds_up(found.ledger) and balances(found.ledger)


def test_an_ordered_step_meets_all_rows_in_their_order(tokenizer: Any) -> None:
    met: list[str] = []

    def remember(row: dict[str, Any]) -> dict[str, Any]:
        met.append(row["text"])
        return row

    texts = [f"cat {number}" for number in range(2500)]
    record = Preprocessor(name="remember", summary="", implementation=remember, ordered=True)
    ordered = Step(Registered(record, Origin("mine", Tier.USER)), remember)
    prepare(reader([{"text": text} for text in texts]), recipe(tokenizer, ordered), processes=2)
    assert met == texts


@pytest.mark.parametrize("processes", [1, 2])
def test_the_number_of_processes_changes_nothing(tokenizer: Any, processes: int) -> None:
    rows = [{"text": f"the cat {number}" if number % 7 else "x"} for number in range(3456)]

    def long_enough(row: dict[str, Any]) -> Any:
        return row if len(row["text"]) > 1 else Drop("short")

    alone = prepare(reader(rows), recipe(tokenizer, step(long_enough)))
    found = prepare(reader(rows), recipe(tokenizer, step(long_enough)), processes=processes)
    assert found.dataset[:] == alone.dataset[:]
    assert found.digests == alone.digests
    assert found.ledger == alone.ledger
    assert balances(found.ledger)


def test_what_is_wrong_with_an_earlier_row_is_heard_first(tokenizer: Any) -> None:
    def reads(on_bad: Any) -> Iterator[Located]:
        for number in range(5000):
            yield Located({"text": "cat" if number != 3100 else 5}, f"rows.jsonl:{number + 1}")
        raise DatasetError("is not JSON", where="rows.jsonl:5001")

    with pytest.raises(DatasetError, match=r"rows\.jsonl:3101 column 'text' must be text, got int 5"):
        prepare(reads, recipe(tokenizer), processes=2)


def test_more_lost_rows_than_allowed_stop_the_run(tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [{"text": "cat"}] * 6 + [{"text": 1}] * 3 + [{"text": ""}]
    message = refusal(rows, tokenizer, on_bad_row="drop", max_row_loss=0.3)
    assert message == (
        "data.train: 4 of 10 rows (40.0%) could not be used, but data.max_row_loss is 0.3; "
        "3 rows: read: column 'text' must be text, got int 1; 1 rows: read: column 'text' has nothing to train on"
    )
    assert prepared(rows, tokenizer, on_bad_row="drop", max_row_loss=0.4).ledger.dropped == 4


def test_rows_that_a_step_leaves_out_as_asked_are_not_lost(tokenizer: Any) -> None:
    def short(row: dict[str, Any]) -> Any:
        return row if len(row["text"]) < 4 else Drop("long")

    found = prepared([{"text": "cat"}, {"text": "the film"}], tokenizer, step(short), max_row_loss=0.0)
    assert (found.ledger.dropped, found.ledger.lost) == (1, 0)


def test_a_step_used_twice_has_two_accounts(tokenizer: Any) -> None:
    def shorter(row: dict[str, Any]) -> Any:
        return {"text": row["text"][1:]} if len(row["text"]) > 1 else Drop("nothing left")

    steps = [attrs.evolve(step(shorter), number=number) for number in (1, 2)]
    found = prepared([{"text": "cat"}, {"text": "we"}], tokenizer, *steps)
    assert [(each["step"], each["rows_in"], each["rows_out"]) for each in found.ledger.as_dict()["steps"][:2]] == [
        ("shorter", 2, 2),
        ("shorter (2)", 2, 1),
    ]
    assert found.ledger.reasons == {"shorter (2): nothing left": 1}


def test_a_stop_iteration_names_the_step_and_the_row(tokenizer: Any) -> None:
    def first_long_word(row: dict[str, Any]) -> Any:
        return {"text": next(word for word in row["text"].split() if len(word) > 3)}

    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        prepared([{"text": "film"}, {"text": "cat"}], tokenizer, step(first_long_word))
    assert caught.value.__notes__ == ["raised by plugin 'mine' (mine) while preprocessing rows.jsonl:2"]
