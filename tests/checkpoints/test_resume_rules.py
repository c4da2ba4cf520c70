"""Whether a run may go on: what must be as it was, what may change, and how that is said."""

import pytest

from smolora_core.checkpoints.resume_rules import check_overrides, compare_config, compare_content
from smolora_core.errors import ConfigError

SAVED = {
    "model": {"path": "./tiny", "dtype": "auto"},
    "seed": 42,
    "lora": {"r": 8, "target_modules": ["q_proj"]},
    "training": {"learning_rate": 2e-4, "logging_steps": 10, "extra": {"weight_decay": 0.0}},
    "loss": {"name": "focal", "gamma": 2.0},
}


def changed(section: str, **values: object) -> dict[str, object]:
    return {**SAVED, section: {**SAVED[section], **values}}


def compared(config, *overrides):
    return compare_config(SAVED, config, overrides, lambda key: f"run.yaml:{len(key)}")


def test_the_same_config_goes_on_without_a_word():
    assert compared(SAVED) == []


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**SAVED, "seed": 1}, "run.yaml:4 seed changed from 42 to 1; {} seed"),
        (changed("lora", r=16), "run.yaml:6 lora.r changed from 8 to 16; {} lora.r"),
        (changed("loss", gamma=3.0), "run.yaml:10 loss.gamma changed from 2.0 to 3.0; {} loss.gamma"),
        (
            changed("lora", target_modules=["v_proj"]),
            "run.yaml:19 lora.target_modules changed from ['q_proj'] to ['v_proj']; {} lora.target_modules",
        ),
        (
            changed("training", extra={"weight_decay": 0.1}),
            "run.yaml:27 training.extra.weight_decay changed from 0.0 to 0.1; {} training.extra.weight_decay",
        ),
    ],
)
def test_what_decides_what_is_learned_must_be_as_it_was(config, message):
    with pytest.raises(ConfigError) as error:
        compared(config)
    assert str(error.value) == message.format("this key cannot change on resume; restore it, or pass --override")


def test_all_that_is_refused_is_refused_together():
    with pytest.raises(ConfigError) as error:
        compared({**changed("lora", r=16), "seed": 1})
    assert len(error.value.problems) == 2


def test_an_override_allows_a_change_and_it_is_said():
    assert compared(changed("lora", r=16), "lora.r") == ["lora.r changed from 8 to 16; the new value is used from here on"]


def test_an_override_of_a_section_covers_what_stands_in_it():
    assert len(compared(changed("loss", gamma=3.0, name="focal"), "loss")) == 1


def test_an_override_of_no_key_is_refused():
    with pytest.raises(ConfigError) as error:
        compared(changed("lora", r=16), "lora.rr")
    assert str(error.value) == "--override unknown key 'lora.rr'; did you mean 'lora.r'?"


def test_an_override_that_is_near_no_key_is_told_the_sections():
    with pytest.raises(ConfigError) as error:
        compared(SAVED, "nonsense", "also nothing")
    assert str(error.value) == (
        "--override unknown key 'also nothing'; sections: lora, loss, model, seed, training\n"
        "--override unknown key 'nonsense'; sections: lora, loss, model, seed, training"
    )


def test_an_override_may_name_what_only_the_checkpoint_has():
    said = compare_config({**SAVED, "lora": {**SAVED["lora"], "old": 1}}, SAVED, ("lora.old",), str)
    assert said == ["lora.old changed from 1 to not set; the new value is used from here on"]


@pytest.mark.parametrize(
    "key", ["seed", "lora", "lora.r", "loss", "loss.gamma", "training.extra.weight_decay", "lora.rank_pattern.q_proj", "data"]
)
def test_without_a_checkpoint_an_override_must_be_one_that_a_config_can_have(key):
    check_overrides((key,))


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lora.rr", "did you mean 'lora.r'?"),
        ("lora.r.x", "did you mean 'lora.r'?"),
        (
            "nonsense",
            "sections: checkpoints, data, debug, lora, loss, memory, model, output_dir, plugins, seed, task, training",
        ),
    ],
)
def test_without_a_checkpoint_any_other_override_is_refused(key, hint):
    with pytest.raises(ConfigError) as error:
        check_overrides((key,))
    assert str(error.value) == f"--override unknown key {key!r}; {hint}"


def test_a_key_that_only_another_version_knows_goes_on_without_a_word():
    assert compare_config({**SAVED, "weather": "fine"}, SAVED, (), str) == []


def test_a_schedule_may_change_and_it_is_said():
    said = compared(changed("training", learning_rate=1e-3))
    assert said == ["training.learning_rate changed from 0.0002 to 0.001; the new value is used from here on"]


def test_what_changes_nothing_that_is_learned_may_change_without_a_word():
    assert compared(changed("training", logging_steps=1)) == []


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("model.path", "the base model"),
        ("data.train", "the training data"),
        ("data.chat_template", "the chat template"),
    ],
)
def test_other_contents_under_the_same_name_are_refused(key, what):
    with pytest.raises(ConfigError) as error:
        compare_content(key, "a", "b", (), "run.yaml:1")
    assert str(error.value) == (
        f"run.yaml:1 {what} changed since the checkpoint; "
        f"this key cannot change on resume; restore it, or pass --override {key}"
    )


def test_other_contents_can_be_allowed():
    said = compare_content("data.train", "a", "b", ("data.train",), "")
    assert said == ["the training data changed since the checkpoint; the new content is used from here on"]


@pytest.mark.parametrize(("saved", "found"), [("a", "a"), (None, "b"), ("a", None)])
def test_what_cannot_be_told_apart_goes_on(saved, found):
    assert compare_content("data.train", saved, found, (), "") == []
