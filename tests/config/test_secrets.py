"""Tokens and passwords are found by their names, and taken out of whatever is shown."""

import pytest

from smolora_core.config import TrainingSection
from smolora_core.config.dump import dump, plain
from smolora_core.config.secrets import REDACTED, Mask, equal_except_secrets, is_secret

PATHS = "model: {path: /tmp/atk/llama}\noutput_dir: /tmp/atk/run\ndata: {train: /tmp/atk/rows.jsonl}\n"
RUN = "model: tiny\ndata: {train: rows.jsonl}\n"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "hub_token", "api_token", "authToken", "github_token", "id_token", "HF_TOKEN", "hftoken"),
        *("AWS_ACCESS_KEY", "api_key", "apiKey", "api-key", "secret_key", "private_key", "SECRET", "client_secret"),
        *("db_password", "passwd", "passphrase", "pwd", "authorization", "credentials", "x-amz-security-token"),
    ],
)
def test_a_secret_is_told_by_its_name(name):
    assert is_secret(name)


@pytest.mark.parametrize("special", ["pad", "eos", "bos", "cls", "sep", "mask", "unk", "stop", "focus", "x", "grid", "user"])
def test_a_token_of_a_vocabulary_is_no_secret(special):
    assert not is_secret(f"{special}_token")


@pytest.mark.parametrize(
    "name", ["tokens", "tokenizer", "text_field", "max_token_length", "eos_token_id", "keyboard", "key", "monkey"]
)
def test_other_names_are_not_secret(name):
    assert not is_secret(name)


@pytest.mark.parametrize("name", ["SSO_TOKEN", "HUGGING_FACE_HUB_TOKEN", "ANY_SERVICE_TOKEN", "DB_PASS", "MYSQL_PWD"])
def test_any_token_of_the_environment_is_a_secret(name):
    assert Mask.of({}, {name: "canary-0123"})("got canary-0123") == "got redacted"


@pytest.mark.parametrize("value", ["training", "Training", "/tmp", "/tmp/atk/of/nobody", "~/keys", "."])
def test_a_path_or_a_word_in_the_environment_is_left_in_what_it_stands_in(value):
    text = f"{value}: {value}/llama, {value}-model"
    assert Mask.of({}, {"DB_PASSWORD": value, "SSO_TOKEN": value})(text) == text


def test_a_secret_that_begins_like_a_path_is_one():
    assert Mask.of({}, {"API_KEY": "/K7MDENG+bPxRfi/CYEXAMPLE"})("with /K7MDENG+bPxRfi/CYEXAMPLE") == "with redacted"


def test_a_word_that_a_config_calls_secret_is_one():
    assert Mask.of({"password": "sunshine"}, {})("sunshine is wrong") == "redacted is wrong"


def test_secrets_of_a_config_and_of_the_environment_are_masked_wherever_they_stand():
    config = TrainingSection(extra={"hub_token": "hf_canary_1"})
    mask = Mask.of(config, {"WANDB_API_KEY": "wandb_canary", "HOME": "/home/somebody"})
    said = {"text": "got hf_canary_1 in /home/somebody", "all": ["wandb_canary", 3], "pair": ("hf_canary_1",)}
    assert mask(said) == {"text": "got redacted in /home/somebody", "all": ["redacted", 3], "pair": ("redacted",)}


def test_a_short_value_is_left_in_the_words_it_stands_in():
    assert Mask.of({}, {"MY_TOKEN": "1"})("step 10 of 100") == "step 10 of 100"


def test_a_secret_inside_another_leaves_nothing_of_it():
    assert Mask(frozenset({"canary-12", "canary-12-long"}))("canary-12-long") == "redacted"


def test_each_line_of_a_secret_is_one():
    key = "-----BEGIN KEY-----\nMIIEcanary1\nMIIEcanary2\n-----END KEY-----"
    assert Mask.of({"private_key": key}, {})("cannot read MIIEcanary2") == "cannot read redacted"


def test_what_stands_in_a_secret_section_is_secret():
    assert Mask.of({"credentials": {"who": "somebody-1"}}, {})("no somebody-1") == "no redacted"


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("https://me:pass@example.org/a@b", "https://redacted@example.org/a@b"),
        ("https://me:p@ss@example.org", "https://redacted@example.org"),
        ("a://u:p@h/x,b://v:q@i/y", "a://redacted@h/x,b://redacted@i/y"),
        ("s3://b/x?token=abc&part=2", "s3://b/x?token=redacted&part=2"),
        ("https://b/x?X-Amz-Date=1&X-Amz-Signature=0a1b#top", "https://b/x?X-Amz-Date=1&X-Amz-Signature=redacted#top"),
        ("https://b/x?sig=a%2Bb&api-key=k", "https://b/x?sig=redacted&api-key=redacted"),
        ("with url: /x?access_token=abc (refused)", "with url: /x?access_token=redacted (refused)"),
        ("https://b/x?page_token=2", "https://b/x?page_token=2"),
        ("https://b/x?design=2&monkey=3", "https://b/x?design=2&monkey=3"),
    ],
)
def test_what_opens_an_address_is_masked(address, masked):
    assert Mask()(address) == masked


def options(read, text):
    return read(f"{RUN}loss: {{name: mine, {text}}}").config


@pytest.mark.parametrize("text", ["pad_token: <pad>", "use_auth_token: true", "api_key:", 'api_key: ""', "by: redacted"])
def test_an_option_that_tells_nothing_is_written_as_it_is(read, text):
    config = options(read, text)
    assert plain(config)["loss"] == {"name": "mine", **config.loss.options}


@pytest.mark.parametrize(
    "text", ["api_key: canary-1", "api-key: 12345678", "nested: [{token: canary-1}]", "credentials: {who: canary-1}"]
)
def test_a_secret_option_is_written_as_a_mark_that_its_value_decides(read, text):
    first = plain(options(read, text))
    assert "canary" not in str(first)
    assert "12345678" not in str(first)
    assert "redacted:" in str(first)
    assert first == plain(options(read, text))
    assert first != plain(options(read, text.replace("canary-1", "canary-2").replace("12345678", "12345679")))


def test_equal_secrets_of_two_keys_have_different_marks(read):
    loss = plain(options(read, "api_key: canary-1, hub_token: canary-1"))["loss"]
    assert loss["api_key"] != loss["hub_token"]


def test_an_option_with_a_secret_of_the_environment_in_it_is_written_as_a_mark(read):
    config = options(read, "header: Bearer canary-123")
    marked = plain(config, Mask.of(config, {"SSO_TOKEN": "canary-123"}))["loss"]["header"]
    assert marked.startswith("redacted:")
    assert equal_except_secrets("loss.header", marked, "Bearer canary-123")
    assert equal_except_secrets("loss.header", "Bearer canary-123", marked)
    assert not equal_except_secrets("loss.header", marked, "Bearer canary-124")


def test_the_environment_changes_no_key_and_no_path_of_what_is_written(read):
    resolved = read(PATHS)
    environment = {"DB_PASSWORD": "per_device_train_batch_size", "SSO_TOKEN": "/tmp/atk", "API_KEY": "atk/llama"}
    assert dump(resolved, Mask.of(resolved.config, environment)) == dump(resolved)
    assert read(dump(resolved)).config == resolved.config


def test_a_path_is_written_without_what_opens_it(read):
    resolved = read(RUN.replace("tiny", "'https://user:PW@hub/x'"))
    assert 'path: "https://redacted@hub/x"' in dump(resolved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "loss: {name: a, api_key: canary-1}",
            "loss.api_key is a secret that was not saved with this config; pass it again with --loss.api_key VALUE",
        ),
        (
            "training: {extra: {hub_token: canary-1}}",
            "training.extra.hub_token is a secret that was not saved with this config; "
            "pass it again with --training.extra.hub_token VALUE",
        ),
        (
            "memory: [plain, {name: far-away, endpoint: 'https://user:PW@host/x'}]",
            "memory.1.endpoint is a secret that was not saved with this config; "
            "pass it again with --memory.far-away.endpoint VALUE",
        ),
    ],
)
def test_a_file_with_a_secret_left_out_is_refused(read, complaints, text, message):
    written = dump(read(f"{RUN}{text}"))
    line = next(number for number, line in enumerate(written.splitlines(), 1) if REDACTED in line)
    assert complaints(written) == [f"run.yaml:{line} {message}"]


def test_a_secret_that_was_left_out_can_be_given_again(read):
    written = dump(read(f"{RUN}memory: [{{name: far-away, api_key: canary-1}}]\nloss: {{name: a, api_key: canary-2}}"))
    again = read(written, "--memory.far-away.api_key", "canary-1", "--loss.api_key", "canary-2").config
    assert (again.memory[0].options, again.loss.options) == ({"api_key": "canary-1"}, {"api_key": "canary-2"})


def test_the_bare_word_under_the_name_of_a_secret_is_refused_too(complaints):
    assert complaints(f"{RUN}loss: {{name: a, api_key: redacted}}")[0].startswith("run.yaml:3 loss.api_key is a secret")
