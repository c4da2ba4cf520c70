"""A run whose micro-batches do not fit in memory takes the steps that it would have taken with enough memory.

tests/training/test_split_invariance.py shows for every pair of task and loss that a split changes no loss and no gradient.
"""

import pytest

from smolora_core import MemoryStrategy, TrainingError, hookimpl
from tests.support.small_memory import ERRORS, Small
from tests.support.small_run import difference
from tests.support.small_tasks import CASES, Watch, run_of


class Seen(Watch):
    """A plugin that makes memory small."""

    def __init__(self, room):
        super().__init__()
        self.room, self.told = room, []

    @hookimpl
    def smolora_adapter_attached(self, model):
        super().smolora_adapter_attached(model)
        self.memory = Small(model, 99, training=None)

    def on_step_begin(self, *arguments, **more):
        self.memory.room = self.room

    def events(self, kind):
        return [event.values for event in self.told if event.kind == kind]


def small_run(model_of, folder, name, room, **options):
    case, seen = CASES[name], Seen(room)
    options |= {"watch": seen, "listener": seen.told.append}
    run = run_of(model_of(name), folder, case, case.some(0, 8), case.some(3, 8), **options)
    return seen, run.train()


@pytest.mark.parametrize(("name", "loss"), [("causal-lm", "focal"), ("regression", "mse")])
def test_the_step_and_the_evaluation_are_those_of_whole_batches(tmp_path, model_of, name, loss):
    found = []
    for room in (8, 2):
        weights = {"weight_field": "weight"}
        found.append(small_run(model_of, tmp_path / str(room), name, room, loss=loss, data=weights, max_steps=1))
    (whole, expected), (parts, metrics) = found
    assert not whole.events("out_of_memory")
    assert parts.events("out_of_memory")
    assert difference(parts.gradients[0], whole.gradients[0]) < 1e-5
    assert metrics == pytest.approx(expected, rel=1e-2 if name == "regression" else 1e-4)


def test_it_is_said_once_and_counted(tmp_path, model_of):
    seen, _ = small_run(model_of, tmp_path, "causal-lm", 1, max_steps=1)
    said = "out of memory at step 1 with a micro-batch of 8 rows; splitting it and later ones of its size"
    warnings = [each["text"] for each in seen.events("warning")]
    assert [each for each in warnings if "memory" in each] == [f"{said}, which does not change the effective batch"]
    told = [(each["step"], each["rows"], each["rows_after"]) for each in seen.events("out_of_memory")]
    assert told[:3] == [(1, 8, 4), (1, 4, 2), (1, 2, 1)]


@pytest.mark.parametrize("helps", [True, False])
def test_a_strategy_of_a_third_party_is_asked_first(tmp_path, model_of, helps):
    asked = []

    class Hoard:
        def out_of_memory(self, error, run):
            asked.append((str(error), error.__traceback__))
            seen.memory.room = 8 if helps else 4
            return helps

    class Brings(Seen):
        @hookimpl
        def smolora_memory_strategies(self):
            return [MemoryStrategy(name="hoard", summary="", devices=("cpu",), default=True, implementation=Hoard)]

    seen, case = Brings(2), CASES["causal-lm"]
    options = {"watch": seen, "listener": seen.told.append, "max_steps": 1}
    run_of(model_of("causal-lm"), tmp_path, case, case.some(0, 8), **options).train()
    assert asked == [(str(ERRORS[0]), None)]
    told = [(each["rows"], each["rows_after"]) for each in seen.events("out_of_memory")]
    assert told == ([(8, 8)] if helps else [(8, 4)])


def test_where_one_row_does_not_fit_the_run_says_what_to_do(tmp_path, model_of):
    with pytest.raises(TrainingError) as error:
        small_run(model_of, tmp_path, "seq2seq-lm", 0, max_steps=2)
    assert str(error.value) == (
        "out of memory at step 1 with a micro-batch of one row; try in this order: "
        "add activation-checkpointing to memory, lower data.max_seq_length from 64, "
        "add low-precision to memory, add quantised to memory"
    )
