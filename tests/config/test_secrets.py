"""Tokens and passwords are found by their names, and taken out of whatever is shown."""

import pytest

from smolora_core.config import TrainingSection
from smolora_core.config.secrets import Mask, is_secret


@pytest.mark.parametrize("name", ["HF_TOKEN", "hub_token", "token", "AWS_ACCESS_KEY", "api_key", "db_password", "SECRET"])
def test_a_secret_is_told_by_its_name(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["tokens", "tokenizer", "text_field", "max_token_length", "eos_token_id", "keyboard"])
def test_other_names_are_not_secret(name):
    assert not is_secret(name)


def test_secrets_of_a_config_and_of_the_environment_are_masked_wherever_they_stand():
    config = TrainingSection(extra={"hub_token": "hf_canary_1"})
    mask = Mask.of(config, {"WANDB_API_KEY": "wandb_canary", "HOME": "/home/somebody"})
    said = {"text": "got hf_canary_1 in /home/somebody", "all": ["wandb_canary", 3], "pair": ("hf_canary_1",)}
    assert mask(said) == {"text": "got redacted in /home/somebody", "all": ["redacted", 3], "pair": ("redacted",)}


def test_a_short_value_is_left_in_the_words_it_stands_in():
    assert Mask.of({}, {"MY_TOKEN": "1"})("step 10 of 100") == "step 10 of 100"


def test_a_secret_inside_another_leaves_nothing_of_it():
    assert Mask(frozenset({"canary-12", "canary-12-long"}))("canary-12-long") == "redacted"


def test_a_password_in_an_address_is_masked():
    assert Mask.of({}, {})("https://me:pass@example.org/a@b") == "https://redacted@example.org/a@b"
