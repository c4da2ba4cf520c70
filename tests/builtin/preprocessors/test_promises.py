"""What every built-in step keeps to, whatever the rows."""

from importlib.util import find_spec

import dill
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smolora_core import SmoLoRAError, Task
from smolora_core.config import DataConfig
from smolora_core.data.pipeline import Recipe, prepare
from smolora_core.data.sources.located import Located
from smolora_core.plugins import PluginManager, build

STEPS = [
    ("strip", {}),
    ("drop-empty", {}),
    ("drop-empty", {"fields": ["text"]}),
    ("rename", {"columns": {"title": "headline"}}),
    ("combine-fields", {"fields": ["title", "text"]}),
    ("template", {"text": "{{ title | upper }}: {{ text }}"}),
    ("chunk-words", {"size": 3, "overlap": 1}),
    ("chunk-tokens", {"size": 4, "overlap": 1}),
    ("dedup", {}),
    ("dedup", {"fields": ["text"]}),
    ("near-dedup", {"threshold": 0.7}),
    ("filter-length", {"minimum": 2, "maximum": 8}),
    ("filter-length", {"maximum": 30, "unit": "tokens"}),
    ("sample", {"fraction": 0.9, "rows": 30}),
    ("split", {"fraction": 0.1}),
]

if find_spec("datasketch") is None:
    STEPS = [each for each in STEPS if each[0] != "near-dedup"]

every_step = pytest.mark.parametrize(("name", "options"), STEPS, ids=[f"{name}-{len(options)}" for name, options in STEPS])

emoji = ["👨‍👩‍👧‍👦", "🏳️‍🌈"]
scraps = st.sampled_from(
    ["the film was good ", "\ud800", "\udfff", "\x00", "e\u0301", "שלום ", *emoji, " \t\r\n", "\u2028", ""]
)
texts = st.lists(st.text(st.characters(), max_size=6) | scraps, max_size=5).map("".join)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
# Rows as they should be, as they may be, and with other columns altogether.
rows = st.lists(
    st.fixed_dictionaries({"text": texts, "title": texts}, optional={"label": values})
    | st.fixed_dictionaries({"text": values}, optional={"title": values, "headline": values})
    | st.dictionaries(texts, values, max_size=3),
    max_size=8,
)

quietly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@every_step
@given(rows=rows)
@quietly
def test_rows_in_equal_rows_out_or_one_of_our_errors_says_why(step, send, name, options, rows):
    try:
        outcome = send(rows, step(name, **options))
    except SmoLoRAError:
        return
    assert len(rows) + outcome.ledger.added == len(outcome.rows) + outcome.ledger.dropped
    assert all(reason.startswith(f"{name}: ") for reason in outcome.ledger.reasons)


@every_step
def test_good_rows_become_sequences(step, context, name, options):
    record = PluginManager.create().registry.resolve(Task, "causal-lm")
    good = [{"text": f"the film was good, said {number} of us", "title": "a film", "label": 1} for number in range(9)]
    recipe = Recipe(
        config=DataConfig(train="rows.jsonl"),
        make_steps=lambda: (step(name, **options),),
        task=build(record),
        formats=record.component.formats,
        tokenizer=context.tokenizer,
    )
    found = prepare(lambda on_bad: (Located(row, "rows.jsonl") for row in good), recipe)
    assert found.ledger.kept > 0
    assert found.ledger.read + found.ledger.added == found.ledger.kept + found.ledger.dropped


@every_step
def test_a_step_works_the_same_in_another_process(step, send, name, options):
    good = [{"text": f"the film was good {number}", "title": "a film"} for number in range(9)]
    made = step(name, **options)
    there = type(made)(made.registered, dill.loads(dill.dumps(made.run)))
    assert send(good, there) == send(good, made)
