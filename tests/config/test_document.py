"""YAML and TOML files, sound and broken."""

import time
from pathlib import Path

import pytest

from smolora_core.config import load_config
from smolora_core.errors import ConfigError

YAML = """\
model: tiny
data:
  train: [a.jsonl, b.jsonl]
  eval: 0.1
  preprocessors: [strip, {name: chunk-words, size: 200}]
lora: {r: 16, target_modules: [q_proj]}
training:
  learning_rate: 1e-4
  extra: {warmup_ratio: 0.1}
loss: {name: focal, gamma: 2}
"""

TOML = """\
model = "tiny"

[data]
train = ["a.jsonl", "b.jsonl"]
eval = 0.1

[[data.preprocessors]]
name = "strip"

[[data.preprocessors]]
name = "chunk-words"
size = 200

[lora]
r = 16
target_modules = ["q_proj"]

[training]
learning_rate = 1e-4
extra.warmup_ratio = 0.1

[loss]
name = "focal"
gamma = 2
"""


def test_yaml_and_toml_say_the_same(read):
    assert read(YAML).config == read(TOML, name="run.toml").config


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("model", 1),
        ("data.train", 4),
        ("data.preprocessors.0.name", 8),
        ("data.preprocessors.1.size", 12),
        ("lora.r", 15),
        ("training.extra.warmup_ratio", 20),
        ("loss.gamma", 24),
    ],
)
def test_values_of_toml_have_lines(read, path, line):
    assert read(TOML, name="run.toml").sources[path] == f"run.toml:{line}"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lines_are_counted_with_any_newline(complaints, newline):
    assert complaints(YAML.replace("eval: 0.1", "eval: 2").replace("\n", newline)) == [
        "run.yaml:4 data.eval must be between 0 and 1, got 2.0"
    ]


def test_a_byte_order_mark_is_no_matter(read):
    assert read(b"\xef\xbb\xbf" + YAML.encode()).config.model.path == "tiny"


def test_json_is_yaml(read):
    assert read('{"model": "tiny", "data": {"train": "a.jsonl"}}', name="run.json").config.data.train == "a.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nmodel: a\nseed: 2", "run.yaml:3 duplicate key 'seed'; it is already set on line 1"),
        ("lora: {r: 8, r: 16}", "run.yaml:1 duplicate key 'lora.r'; it is already set on line 1"),
        (
            "lora:\n\tr: 8",
            "run.yaml:2:1 is not valid YAML (while scanning for the next token, "
            "found character '\\t' that cannot start any token); indent with spaces",
        ),
        ("model: a: b", "run.yaml:1:9 is not valid YAML (mapping values are not allowed here)"),
        (
            "lora: {r: 8",
            "run.yaml:1:12 is not valid YAML (while parsing a flow mapping, expected ',' or '}', but got '<stream end>')",
        ),
        (
            "lora:\n  r: 8\n alpha: 16",
            "run.yaml:3:2 is not valid YAML (while parsing a block mapping, "
            "expected <block end>, but found '<block mapping start>')",
        ),
        (
            "seed: 1\n---\nseed: 2",
            "run.yaml:2:1 is not valid YAML (expected a single document in the stream, but found another document)",
        ),
        ("seed: *missing", "run.yaml:1:7 is not valid YAML (found undefined alias 'missing')"),
        ("seed: 1\nmodel: \0", "run.yaml:2 is not valid YAML (special characters are not allowed)"),
        ("{[a]: b}", "run.yaml:1:2 is not valid YAML (while constructing a mapping, found unhashable key)"),
        ("seed: !!int x", "run.yaml:1:7 is not valid YAML (cannot parse 'x')"),
        ("seed: !!bool x", "run.yaml:1:7 is not valid YAML (cannot parse 'x')"),
        (
            "seed: !!python/object/apply:os.getcwd []",
            "run.yaml:1:7 is not valid YAML (could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd')",
        ),
        (f"seed: {'9' * 5000}", f"run.yaml:1:7 is not valid YAML (cannot parse '{'9' * 40}')"),
        ("- model\n- data", "run.yaml contains no keys; it needs at least 'model: ...' and 'data: ...'"),
        ("model:tiny", "run.yaml contains no keys; it needs at least 'model: ...' and 'data: ...'"),
        ("[" * 10_000, "run.yaml is nested too deeply"),
        ("seed: &again {again: *again}", "run.yaml is nested too deeply"),
    ],
)
def test_broken_yaml_is_refused_with_its_place(complaints, text, message):
    assert complaints(text) == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1\nseed = 2", "run.toml:2 is not valid TOML (Cannot overwrite a value)"),
        ("seed = ", "run.toml:1 is not valid TOML (Invalid value)"),
        ("seed = 1\nmodel = tiny", "run.toml:2:9 is not valid TOML (Invalid value)"),
        ("seed: 1", "run.toml:1:5 is not valid TOML (Expected '=' after a key in a key/value pair)"),
        (f"seed = {'[' * 10_000}", "run.toml is nested too deeply"),
    ],
)
def test_broken_toml_is_refused_with_its_place(complaints, text, message):
    assert complaints(text, name="run.toml") == [message]


def test_an_alias_stands_for_the_same_value_in_two_places(read):
    config = read("model: tiny\ndata: {train: &rows [a.jsonl]}\nlora: {target_modules: *rows}").config
    assert config.data.train == config.lora.target_modules == ("a.jsonl",)


def test_a_few_lines_that_stand_for_billions_of_values_are_refused_at_once(complaints):
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    start = time.perf_counter()
    assert complaints("\n".join(lines)) == ["run.yaml contains more than 100000 values"]
    assert time.perf_counter() - start < 5


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(complaints):
    assert complaints("seed: 1\noutput_dir: café\n".encode("latin-1")) == ["run.yaml:2 is not UTF-8; save it as UTF-8"]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_lacks_what_every_config_needs(complaints, text):
    assert complaints(text) == ["run.yaml key 'model' is missing", "run.yaml key 'data' is missing"]


def missing(name):
    with pytest.raises(ConfigError) as caught:
        load_config(Path(name))
    return str(caught.value)


@pytest.mark.usefixtures("read")
def test_a_missing_file_gets_the_nearest_name():
    Path("run.yaml").touch()
    Path("notes.toml").touch()
    assert missing("run.yml") == "no file 'run.yml'; did you mean 'run.yaml'?"


@pytest.mark.usefixtures("read")
def test_a_missing_file_gets_its_neighbours():
    Path("run.yaml").touch()
    Path("notes.toml").touch()
    assert missing("experiment-17.yaml") == "no file 'experiment-17.yaml'; found here: notes.toml, run.yaml"


@pytest.mark.usefixtures("read")
def test_a_missing_file_among_no_others():
    assert missing("run.yaml") == "no file 'run.yaml'"


@pytest.mark.usefixtures("read")
def test_a_file_in_a_missing_folder():
    assert missing("runs/run.yaml") == "no file 'runs/run.yaml'; folder 'runs' does not exist"


@pytest.mark.usefixtures("read")
def test_a_folder_is_no_config():
    Path("runs").mkdir()
    assert missing("runs") == "'runs' is a folder; pass the config file inside it"


@pytest.mark.usefixtures("read")
def test_a_name_that_no_file_can_have():
    assert missing("run\0.yaml") == r"file 'run\x00.yaml' cannot be read (embedded null byte)"
