"""What is secret reaches nothing that a run leaves, and a run that is continued still notices when it changes."""

import os
from pathlib import Path

import attrs
import pytest

from smolora_core import ConfigError, Preprocessor, hookimpl
from smolora_core.config import load_config, parse_flags
from tests.support.injector import Injected, fail_at
from tests.support.runs import config_of, events

KEY, PASSWORD, SESSION = "canary-of-a-key", "canary-of-an-address", "canary-of-the-environment"
GIVEN = {
    "api_key": KEY,
    "endpoint": f"https://user:{PASSWORD}@host/rows?token={KEY}",
    "header": f"Bearer {SESSION}",
    "pad_token": "<pad>",
}


@attrs.frozen
class Options:
    api_key: str
    endpoint: str
    header: str
    pad_token: str


def fetch(row, **options):
    return row


class Fetching:
    @hookimpl
    def smolora_preprocessors(self):
        yield Preprocessor(name="fetch", summary="fetches", implementation=fetch, options=Options)


@pytest.fixture
def go(train, monkeypatch):
    """Train with a step that has secrets."""
    monkeypatch.setenv("SSO_TOKEN", SESSION)

    def go(resume="never", plugins=(), overrides=(), **changes):
        step = {"name": "fetch", **GIVEN, **changes}
        return train(resume, overrides, (Fetching(), *plugins), data={"preprocessors": [step]}, training={"max_steps": 4})

    return go


@pytest.fixture
def stopped(go, tmp_path) -> Path:
    with pytest.raises(Injected):
        go(plugins=(fail_at(3, "on_step_begin", "raise"),))
    return tmp_path / "run"


def refusal(go, **changes):
    with pytest.raises(ConfigError) as error:
        go("auto", **changes)
    return str(error.value)


def test_nothing_that_a_run_leaves_tells_a_secret(go, stopped):
    go("auto")
    left = [path.read_bytes() for path in stopped.rglob("*") if path.is_file()]
    assert len(left) > 10
    for secret in (KEY, PASSWORD, SESSION):
        assert not any(secret.encode() in content for content in left)


def test_a_run_with_secrets_goes_on(go, stopped):
    go("auto")
    assert [each["step"] for each in events(stopped, "resumed")] == [2]


def test_it_goes_on_where_the_environment_no_longer_knows_them(go, stopped, monkeypatch):
    monkeypatch.delenv("SSO_TOKEN")
    go("auto")
    assert [each["step"] for each in events(stopped, "resumed")] == [2]


def test_it_goes_on_with_another_password_of_the_same_address(go, stopped):
    go("auto", endpoint="https://user:other@host/rows?token=other")
    assert [each["step"] for each in events(stopped, "resumed")] == [2]


def test_another_secret_is_noticed_and_neither_is_told(go, stopped):
    text = refusal(go, api_key="canary-of-another")
    assert text.startswith("given from Python data.preprocessors changed from ")
    assert text.count("'api_key': 'redacted:") == 2
    assert "canary" not in text


def test_what_only_sounds_like_a_secret_is_compared_and_shown(go, stopped):
    text = refusal(go, pad_token="<other>")
    assert "'pad_token': '<pad>'" in text
    assert "'pad_token': '<other>'" in text


def test_the_config_that_is_left_is_not_trained_without_its_secrets(stopped):
    with pytest.raises(ConfigError) as error:
        load_config(stopped / "run.yaml")
    assert [problem.hint for problem in error.value.problems] == [
        f"pass it again with --data.preprocessors.fetch.{name} VALUE" for name in ("api_key", "endpoint", "header")
    ]


def test_with_its_secrets_it_is_the_same_config(stopped):
    flags = [f"--data.preprocessors.fetch.{name}={GIVEN[name]}" for name in ("api_key", "endpoint", "header")]
    config = load_config(stopped / "run.yaml", parse_flags(flags)[1]).config
    assert config.data.preprocessors[0].options == GIVEN


def test_words_and_paths_of_the_environment_stay_in_the_config_that_is_left(train, llama, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "training")
    monkeypatch.setenv("SSO_TOKEN", str(tmp_path))
    monkeypatch.setenv("API_KEY", os.fspath(llama))
    train(training={"max_steps": 1})
    left = load_config(tmp_path / "run" / "run.yaml").config
    given = config_of(llama, rows, tmp_path / "run")
    assert (left.model.path, left.output_dir, left.data.train) == (
        given["model"]["path"],
        given["output_dir"],
        given["data"]["train"],
    )


def test_an_override_of_no_key_is_refused_before_anything_is_moved(train, tmp_path):
    train(training={"max_steps": 1})
    with pytest.raises(ConfigError, match="--override unknown key 'nonsense'; sections: checkpoints, data, "):
        train(overrides=("nonsense",))
    assert not (tmp_path / "run" / "previous-1").exists()


def test_an_override_of_no_key_is_refused_where_there_is_no_checkpoint(train):
    with pytest.raises(ConfigError, match=r"--override unknown key 'lora\.rr'; did you mean 'lora\.r'\?"):
        train("auto", overrides=("lora.rr",))
