"""Which config keys may change when a run resumes."""

from collections.abc import Iterator

import attrs
import pytest

from smolora_core.checkpoints.resume_rules import changes, rule_of
from smolora_core.config import RunConfig, Selection
from smolora_core.config.dump import plain

EXACT = {
    "model.dtype",
    "task",
    "seed",
    *(f"data.{name}" for name in ("eval", "format", "text_field", "prompt_field", "completion_field", "instruction_field")),
    *(f"data.{name}" for name in ("input_field", "output_field", "messages_field", "label_field", "weight_field")),
    *(f"data.{name}" for name in ("chat_template", "encoding", "delimiter", "header", "max_seq_length", "on_bad_row")),
    *(f"data.{name}" for name in ("preprocessors", "streaming")),
    *(f"lora.{name}" for name in ("r", "alpha", "dropout", "target_modules", "exclude_modules", "layers_to_transform")),
    *(f"lora.{name}" for name in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init", "bias")),
    *(f"lora.{name}" for name in ("modules_to_save", "extra")),
    *(f"training.{name}" for name in ("max_tokens_per_batch", "metric", "batching", "fast_kernels", "extra")),
    "loss",
}
CONTENT = {"model.path", "model.revision", "data.train"}
SCHEDULE = {"training.num_train_epochs", "training.max_steps", "training.learning_rate", "memory"}
FREE = {
    *("model.trust_remote_code", "model.device", "output_dir"),
    *("data.max_row_loss", "data.num_proc", "data.cache"),
    *(f"training.{name}" for name in ("per_device_eval_batch_size", "logging_steps", "eval_steps", "sample_prompts")),
    *(f"training.{name}" for name in ("max_time", "early_stopping", "final_adapter")),
    # The number of rows in a step stays that of the checkpoint, however these split it.
    *(f"training.{name}" for name in ("per_device_train_batch_size", "effective_batch_size", "gradient_accumulation_steps")),
    *(f"checkpoints.{name}" for name in ("writers", "save_steps", "keep", "save_failure")),
    *(f"plugins.{name}" for name in ("require", "disable", "load")),
    *(f"debug.{name}" for name in ("log_level", "profile_training", "save_intermediate")),
}
RULES = {"exact": EXACT, "content": CONTENT, "schedule": SCHEDULE, "free": FREE}


def keys(section: type, prefix: str = "") -> Iterator[str]:
    for field in attrs.fields(section):
        inside = field.type is not None and attrs.has(field.type) and field.type is not Selection
        yield from keys(field.type, f"{prefix}{field.name}.") if inside else [f"{prefix}{field.name}"]


def test_every_key_of_a_config_has_a_rule():
    assert sorted(keys(RunConfig)) == sorted(set().union(*RULES.values()))


@pytest.mark.parametrize("key", sorted(keys(RunConfig)))
def test_it_is_the_one_agreed_on(key):
    assert key in RULES[rule_of(key)]


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("loss.gamma", "exact"),
        ("training.extra.weight_decay", "exact"),
        ("training.extra.warmup_steps", "schedule"),
        ("training.extra.dataloader_num_workers", "free"),
    ],
)
def test_what_stands_inside_a_key_follows_it_unless_it_has_an_entry(key, rule):
    assert rule_of(key) == rule


def test_a_key_that_nothing_speaks_for_is_an_error():
    with pytest.raises(KeyError):
        rule_of("weather")


def test_changes_are_found_at_any_depth():
    old = {"lora": {"r": 8, "target_modules": ("q_proj",)}, "loss": {"name": "focal", "gamma": 2.0}, "seed": 1}
    new = {"lora": {"r": 16, "target_modules": ["q_proj"]}, "loss": {"name": "focal", "gamma": 3.0}, "seed": 1}
    assert [str(change) for change in changes(old, new)] == [
        "lora.r changed from 8 to 16",
        "loss.gamma changed from 2.0 to 3.0",
    ]


def test_what_was_not_given_is_a_change_too():
    assert [str(change) for change in changes({"seed": 1}, {"seed": 1, "memory": "none"})] == [
        "memory changed from not set to 'none'"
    ]


def test_a_key_of_another_version_is_free():
    (change,) = changes({"seed": 1, "weather": {"wind": 3}}, {"seed": 1})
    assert (change.key, change.rule) == ("weather.wind", "free")


def test_a_key_of_this_version_that_nothing_speaks_for_is_noticed():
    with pytest.raises(KeyError):
        changes({"seed": 1}, {"seed": 1, "weather": "fine"})


def test_a_secret_that_was_written_as_a_mark_is_compared_with_it():
    marked, other = (plain(Selection(name="mine", options={"api_key": value}), key="loss") for value in ("one-1", "two-2"))
    assert changes({"loss": marked}, {"loss": {"name": "mine", "api_key": "one-1"}}) == []
    (change,) = changes({"loss": marked}, {"loss": other})
    assert (change.key, change.rule) == ("loss.api_key", "exact")
    assert "one-1" not in str(change)


def test_a_secret_in_a_list_of_components_is_compared_too():
    chosen = (Selection(name="far", options={"token": "one-1"}),)
    marked = {"data": {"preprocessors": plain(chosen, key="data.preprocessors")}}
    assert changes(marked, {"data": {"preprocessors": [{"name": "far", "token": "one-1"}]}}) == []
    assert len(changes(marked, {"data": {"preprocessors": [{"name": "far", "token": "two-2"}]}})) == 1
