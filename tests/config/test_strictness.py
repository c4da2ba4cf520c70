"""Values are taken as they are or refused; and all problems are told at once, each with its place."""

import pytest

SOUND = "model: tiny\ndata: {train: rows.jsonl}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # whole numbers
        ("lora: {r: 8.5}", "lora.r must be an integer, got 8.5"),
        ("lora: {r: 8.0}", "lora.r must be an integer, got 8.0"),
        ("lora: {r: '8'}", "lora.r must be an integer, got '8'"),
        ("lora: {r: true}", "lora.r must be an integer, got true"),
        ("lora: {r: }", "lora.r must be an integer, got nothing"),
        ("lora: {r: [8]}", "lora.r must be an integer, got [8]"),
        ("lora: {r: {a: 8}}", "lora.r must be an integer, got a mapping"),
        ("lora: {r: 8_0}", "lora.r must be an integer, got '8_0'"),
        ("lora: {r: 0x10}", "lora.r must be an integer, got '0x10'"),
        # numbers
        ("lora: {alpha: '16'}", "lora.alpha must be a number, got '16'"),
        ("lora: {alpha: no}", "lora.alpha must be a number, got 'no'"),
        ("lora: {alpha: false}", "lora.alpha must be a number, got false"),
        (f"lora: {{alpha: 1{'0' * 400}}}", "lora.alpha must be a number, got a number of more than 100 digits"),
        # truth values
        ("debug: {profile_training: no}", "debug.profile_training must be true or false, got 'no'"),
        ("debug: {profile_training: 1}", "debug.profile_training must be true or false, got 1"),
        # text
        ("output_dir: 3", "output_dir must be a string, got 3"),
        ("output_dir: ", "output_dir must be a string, got nothing"),
        ("task: true", "task must be a string, got true"),
        # choices
        (
            "debug: {log_level: info}",
            "debug.log_level must be one of DEBUG, INFO, WARNING, ERROR, got 'info'",
        ),
        (
            "debug: {log_level: WARN}",
            "debug.log_level must be one of DEBUG, INFO, WARNING, ERROR, got 'WARN'; did you mean 'WARNING'?",
        ),
        ("debug: {log_level: 3}", "debug.log_level must be one of DEBUG, INFO, WARNING, ERROR, got 3"),
        # one thing or another
        ("lora: {target_modules: 3}", "lora.target_modules must be a string or a list, got 3"),
        ("memory: nonee", "memory must be one of auto, none or a list, got 'nonee'; did you mean 'none'?"),
        ("memory: 3", "memory must be one of auto, none or a list, got 3"),
        # lists
        ("plugins: {require: acme}", "plugins.require must be a list, got 'acme'"),
        ("plugins: {require: [acme, 3]}", "plugins.require.1 must be a string, got 3"),
        ("lora: {target_modules: [q_proj, 3]}", "lora.target_modules.1 must be a string, got 3"),
        # mappings
        ("training: {extra: [a]}", "training.extra must be a mapping, got ['a']"),
        ("training: {extra: {1: a}}", "key 1 in training.extra must be a string"),
        # components
        ("loss: 3", "loss must be a name, got 3"),
        ("loss: {gamma: 2}", "loss has no key 'name'; write {name: ...}, with its options in the same mapping"),
        ("loss: {name: 3}", "loss.name must be a string, got 3"),
        (
            "checkpoints: {writers: [{adapter: {}}]}",
            "checkpoints.writers.0 has no key 'name'; write {name: ...}, with its options in the same mapping",
        ),
        ("checkpoints: {writers: adapter}", "checkpoints.writers must be a list, got 'adapter'"),
        # sections
        ("lora: 8", "lora must be a mapping, got 8"),
        ("lora: [8]", "lora must be a mapping, got [8]"),
        # ranges
        ("lora: {r: 0}", "lora.r must be above 0, got 0"),
        ("lora: {alpha: -1}", "lora.alpha must be above 0, got -1.0"),
        ("lora: {alpha: .inf}", "lora.alpha must be above 0, got inf"),
        ("lora: {dropout: 1}", "lora.dropout must be at least 0 and below 1, got 1.0"),
        ("lora: {dropout: .nan}", "lora.dropout must be at least 0 and below 1, got nan"),
        ("training: {learning_rate: 0}", "training.learning_rate must be above 0, got 0.0"),
        ("training: {max_steps: 0}", "training.max_steps must be above 0 or -1, got 0"),
        ("training: {max_steps: -2}", "training.max_steps must be above 0 or -1, got -2"),
        ("seed: -1", "seed must be at least 0 and below 2^32, got -1"),
        ("seed: 4294967296", "seed must be at least 0 and below 2^32, got 4294967296"),
        ("checkpoints: {keep: 1}", "checkpoints.keep must be above 1, got 1"),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused(complaints, line, message):
    assert complaints(SOUND + line) == [f"run.yaml:3 {message}"]


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-0.1"])
def test_a_fraction_held_out_lies_between_0_and_1(complaints, value):
    assert complaints(f"model: tiny\ndata:\n  train: rows.jsonl\n  eval: {value}") == [
        f"run.yaml:4 data.eval must be between 0 and 1, got {float(value)}"
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[a.jsonl]", "data.eval must be a number or a string or a mapping, got ['a.jsonl']"),
        ("{}", "data.eval is an empty mapping"),
        ("{easy: 3}", "data.eval.easy must be a string, got 3"),
        ("{Easy: a}", "data.eval names a set 'Easy', but a name may contain only a-z, 0-9, _ and -"),
        ("{easy.1: a}", "data.eval names a set 'easy.1', but a name may contain only a-z, 0-9, _ and -"),
        ("{loss: a}", "data.eval names a set 'loss', but names of metrics begin with that word"),
        ("{easy: a, token: b}", "data.eval names a set 'token', but names of metrics begin with that word"),
    ],
)
def test_a_name_of_a_held_out_set_is_a_plain_word_and_no_metric(complaints, value, message):
    assert complaints(f"model: tiny\ndata:\n  train: rows.jsonl\n  eval: {value}") == [f"run.yaml:4 {message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: 3", "unknown key 'epochs'; known: checkpoints, data, debug, lora, loss, memory, model, output_dir, plugins,"),
        ("lorra: {r: 8}", "unknown key 'lorra'; did you mean 'lora'?"),
        ("lora: {rank: 8}", "unknown key 'rank' in lora; known: alpha, alpha_pattern, bias, dropout"),
        ("lora: {droput: 0}", "unknown key 'droput' in lora; did you mean 'dropout'?"),
        ("lora: {1: 0}", "unknown key 1 in lora; known: alpha, alpha_pattern, bias, dropout"),
        ("lora: {null: 0}", "unknown key None in lora; known: alpha, alpha_pattern, bias, dropout"),
        ("lora: {<<: 0}", "unknown key '<<' in lora; known: alpha, alpha_pattern, bias, dropout"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(complaints, line, message):
    [complaint] = complaints(SOUND + line)
    assert complaint.startswith(f"run.yaml:3 {message}")


def test_all_problems_are_told_at_once_each_with_its_line(complaints):
    assert complaints(
        """\
        model: tiny
        data:
          train: rows.jsonl
          max_lenght: 256
        lora:
          r: 0
          alpha: yes
        training:
          learning_rate: fast
          max_steps: 10
          logging_steps: -1
        """
    ) == [
        "run.yaml:4 unknown key 'max_lenght' in data; did you mean 'max_seq_length'?",
        "run.yaml:6 lora.r must be above 0, got 0",
        "run.yaml:7 lora.alpha must be a number, got 'yes'",
        "run.yaml:9 training.learning_rate must be a number, got 'fast'",
        "run.yaml:11 training.logging_steps must be auto or above 0, got -1",
    ]


def test_problems_of_several_items_of_a_list_are_told_with_the_line_of_each(complaints):
    assert complaints(SOUND + "plugins:\n  require:\n    - 1\n    - acme\n    - 2\n") == [
        "run.yaml:5 plugins.require.0 must be a string, got 1",
        "run.yaml:7 plugins.require.2 must be a string, got 2",
    ]


def test_missing_keys_are_named(complaints):
    assert complaints("seed: 1") == ["run.yaml key 'model' is missing", "run.yaml key 'data' is missing"]


def test_a_missing_key_of_a_section_has_the_line_of_the_section(complaints):
    assert complaints("model: tiny\ndata: {format: text}") == ["run.yaml:2 key 'data.train' is missing"]


def test_a_section_whose_keys_are_all_commented_out_keeps_its_defaults(read):
    assert read(SOUND + "lora:\n#  r: 16\n").config.lora.r == 8


def test_a_long_value_is_shortened(complaints):
    [complaint] = complaints(SOUND + f"seed: [{', '.join(map(str, range(1000)))}]")
    assert complaint == "run.yaml:3 seed must be an integer, got [0, 1, 2, 3, 4, 5, ...]"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.0e-4", 2e-4), (".5", 0.5), ("1.", 1.0), ("1", 1.0), ("+1e1", 10.0)]
)
def test_numbers_are_read_as_people_write_them(read, text, value):
    rate = read(SOUND + f"training: {{learning_rate: {text}}}").config.training.learning_rate
    assert (rate, type(rate)) == (value, float)


def test_a_leading_zero_is_no_octal(read):
    assert read(SOUND + "seed: 010").config.seed == 10


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "y", "2024-01-01", "1_0", "12:30:00"])
def test_words_stay_words(read, word):
    assert read(SOUND + f"output_dir: {word}").config.output_dir == word


@pytest.mark.parametrize("word", ["true", "True", "TRUE"])
def test_truth_is_spelt_true(read, word):
    assert read(SOUND + f"debug: {{profile_training: {word}}}").config.debug.profile_training is True


def test_a_whole_number_is_a_number(read):
    alpha = read(SOUND + "lora: {alpha: 32}").config.lora.alpha
    assert (alpha, type(alpha)) == (32.0, float)


def test_lists_become_tuples(read):
    assert read(SOUND + "lora: {target_modules: [q_proj, v_proj]}").config.lora.target_modules == ("q_proj", "v_proj")
