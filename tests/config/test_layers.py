"""Defaults, file, flags: what is laid over what, and where each value came from."""

import attrs
import pytest

from smolora_core.config import DebugConfig, LoRAConfig, Selection, Setting, load_config, parse_flags, resolve
from smolora_core.config.document import Document
from smolora_core.config.dump import dump
from smolora_core.errors import ConfigError

RUN = """\
model: tiny
data:
  train: rows.jsonl
  preprocessors: [strip, {name: chunk-words, size: 200}]
lora:
  r: 8
loss: {name: focal, gamma: 2}
"""


def test_a_flag_overrides_the_file(read):
    assert read(RUN, "--lora.r", "16").config.lora.r == 16


def test_a_flag_leaves_the_rest_of_its_section_alone(read):
    data = read(RUN, "--data.max_seq_length", "64").config.data
    assert (data.train, data.max_seq_length) == ("rows.jsonl", 64)


def test_the_last_of_two_flags_counts(read):
    assert read(RUN, "--lora.r", "16", "--lora.r", "32").config.lora.r == 32


@pytest.mark.parametrize("flags", [("--lora.r=16",), ("--lora.r", "16")])
def test_a_flag_has_its_value_behind_a_blank_or_an_equals_sign(read, flags):
    assert read(RUN, *flags).config.lora.r == 16


def test_a_flag_may_be_spelt_with_hyphens(read):
    assert read(RUN, "--output-dir", "runs/a").config.output_dir == "runs/a"


def test_a_flag_makes_the_section_that_the_file_does_not_have(read):
    assert read(RUN, "--debug.log_level", "DEBUG").config.debug == DebugConfig(log_level="DEBUG")


def test_a_flag_fills_a_section_that_is_empty_in_the_file(read):
    assert read("model: tiny\ndata: {train: rows.jsonl}\nlora:\n", "--lora.r", "16").config.lora.r == 16


def test_flags_alone_are_a_config():
    file, settings = parse_flags(["--model", "tiny", "--data.train", "rows.jsonl"])
    config = load_config(file, settings).config
    assert (config.model.path, config.data.train) == ("tiny", "rows.jsonl")


def test_a_wrong_value_in_a_flag_is_told_with_the_flag_beside_those_of_the_file(complaints):
    assert complaints(RUN.replace("r: 8", "r: 0"), "--lora.alpha", "much", "--lora.rank=3") == [
        "--lora.rank unknown key 'rank' in lora; known: alpha, alpha_pattern, bias, dropout, exclude_modules, extra, "
        "init, layers_to_transform, modules_to_save, r, rank_pattern, target_modules, use_dora, use_rslora",
        "run.yaml:6 lora.r must be above 0, got 0",
        "--lora.alpha lora.alpha must be a number, got 'much'",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rows: new.jsonl", "rows: new.jsonl"),
        ("# rows", "# rows"),
        ("rows # new", "rows # new"),
        ("*.jsonl", "*.jsonl"),
        ("&rows", "&rows"),
        ("'16'", "16"),
        ('"true"', "true"),
        ("[a.jsonl, b.jsonl]", ("a.jsonl", "b.jsonl")),
        ("[a.jsonl", "[a.jsonl"),
    ],
)
def test_the_text_of_a_flag_is_taken_as_it_is_unless_it_is_a_list_or_quoted(read, text, value):
    assert read(RUN, "--data.train", text).config.data.train == value


def flags_error(*flags):
    with pytest.raises(ConfigError) as caught:
        parse_flags(flags)
    return str(caught.value)


def test_a_flag_without_a_value_is_refused():
    assert flags_error("run.yaml", "--lora.r") == "--lora.r has no value; write --lora.r VALUE"


def test_a_flag_followed_by_another_flag_has_no_value():
    assert flags_error("run.yaml", "--debug.profile_training", "--lora.r", "8") == (
        "--debug.profile_training has no value; write --debug.profile_training VALUE"
    )


def test_a_negative_number_is_a_value(read):
    assert read(RUN, "--training.max_steps", "-1").config.training.max_steps == -1


def test_a_second_file_is_refused():
    assert flags_error("run.yaml", "other.yaml") == "unexpected 'other.yaml'; the config file is already 'run.yaml'"


def test_the_model_may_be_written_as_one_text(read):
    assert read(RUN).config.model.path == "tiny"


def test_a_flag_for_the_model_as_one_text_keeps_its_other_keys(read):
    model = read(RUN.replace("model: tiny", "model: {path: tiny, dtype: float32}"), "--model", "small").config.model
    assert (model.path, model.dtype) == ("small", "float32")


def test_a_flag_for_another_key_of_the_model_keeps_its_path(read):
    model = read(RUN, "--model.dtype", "float32").config.model
    assert (model.path, model.dtype) == ("tiny", "float32")


def test_a_loss_may_be_written_as_one_text(read):
    assert read("model: tiny\ndata: {train: a}\nloss: focal").config.loss == Selection(name="focal")


def test_a_loss_may_have_options_beside_its_name(read):
    assert read(RUN).config.loss == Selection(name="focal", options={"gamma": 2})


def test_a_flag_for_an_option_of_the_loss_keeps_its_name(read):
    assert read(RUN, "--loss.gamma", "5").config.loss == Selection(name="focal", options={"gamma": 5})


def test_a_flag_for_another_loss_leaves_the_options_of_the_first_behind(read):
    assert read(RUN, "--loss", "mse", "--loss.scale", "2").config.loss == Selection(name="mse", options={"scale": 2})


def test_a_flag_sets_an_option_of_a_component_in_a_list_by_its_name(read):
    assert read(RUN, "--data.preprocessors.chunk-words.size", "100").config.data.preprocessors == (
        Selection(name="strip"),
        Selection(name="chunk-words", options={"size": 100}),
    )


def test_a_flag_gives_options_to_a_component_that_has_none_in_the_file(read):
    first = read(RUN, "--data.preprocessors.strip.side", "left").config.data.preprocessors[0]
    assert first == Selection(name="strip", options={"side": "left"})


def test_a_flag_sets_an_option_of_a_component_in_a_list_that_a_flag_gave(read):
    memory = read(RUN, "--memory", "[clear-cache]", "--memory.clear-cache.interval", "5").config.memory
    assert memory == (Selection(name="clear-cache", options={"interval": 5}),)


def test_flags_add_held_out_sets_by_name_and_replace_them(read):
    run = "model: tiny\ndata:\n  train: a\n  eval: {easy: a, very-hard: b}"
    resolved = read(run, "--data.eval.very-hard", "c", "--data.eval.long", "d")
    assert list(resolved.config.data.eval.items()) == [("easy", "a"), ("very-hard", "c"), ("long", "d")]
    assert resolved.where("data.eval.easy") == "run.yaml:4"
    assert resolved.where("data.eval.long") == "--data.eval.long"
    assert read(run, "--data.eval", "0.1").config.data.eval == 0.1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--data.preprocessors.chunk-word.size", "data.preprocessors has no item 'chunk-word'; did you mean 'chunk-words'?"),
        (
            "--data.preprocessors.strip",
            "data.preprocessors is a list; set the whole list, or one option: --data.preprocessors.strip.OPTION",
        ),
        ("--data.train.first", "data.train is not a section"),
        ("--seed.first", "seed must be an integer, got a mapping"),
    ],
)
def test_a_flag_that_leads_nowhere_is_refused(complaints, flag, message):
    assert complaints(RUN, flag, "3") == [f"{flag} {message}"]


def test_settings_are_not_changed_by_settings_laid_over_them(read):
    _, settings = parse_flags(["--memory", "[{name: a, x: 1}]", "--memory.a.x", "2"])
    resolve(Document({"model": "tiny", "data": {"train": "a"}}, {}), settings)
    assert settings[0].value == [{"name": "a", "x": 1}]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model.path", "run.yaml:1"),
        ("data.train", "run.yaml:3"),
        ("data.preprocessors.1.size", "run.yaml:4"),
        ("lora.r", "--lora.r"),
        ("loss.gamma", "--loss.gamma"),
        ("loss.name", "run.yaml:7"),
        ("debug.log_level", "--debug.log_level"),
        ("data.preprocessors.0.side", "--data.preprocessors.strip.side"),
        ("lora.alpha", None),
        ("seed", None),
    ],
)
def test_every_value_knows_its_source_and_a_default_has_none(read, path, source):
    flags = ("--lora.r=4", "--loss.gamma=1", "--debug.log_level=DEBUG", "--data.preprocessors.strip.side=left")
    assert read(RUN, *flags).sources.get(path) == source


@pytest.mark.parametrize(("path", "place"), [("lora.r", "run.yaml:6"), ("lora.alpha", "run.yaml:5"), ("seed", "run.yaml")])
def test_the_place_to_look_for_a_value_is_its_own_or_its_sections_or_the_file(read, path, place):
    assert read(RUN).where(path) == place


def test_a_flag_takes_over_the_source_of_all_that_it_replaces(read):
    assert read(RUN, "--loss", "{name: focal, gamma: 5}").sources["loss.gamma"] == "--loss"


def test_values_from_python_have_their_source_too():
    given = Document({"model": "tiny", "data": {"train": "a"}, "lora": LoRAConfig(r=4)}, {"": "given from Python"})

    resolved = resolve(given, [Setting(("data", "format"), "text", "train(format=...)")])

    assert resolved.config.lora == LoRAConfig(r=4)
    assert resolved.sources["data.train"] == resolved.sources["lora.r"] == "given from Python"
    assert resolved.sources["data.format"] == "train(format=...)"
    assert "seed" not in resolved.sources


def test_values_from_python_are_checked_as_strictly():
    with pytest.raises(ConfigError) as caught:
        resolve(Document({"model": "tiny", "data": {"train": "a"}, "lora": LoRAConfig(r=8.5)}, {"": "given from Python"}))
    assert str(caught.value) == "given from Python lora.r must be an integer, got 8.5"


def test_a_section_refuses_a_value_out_of_range_from_python():
    with pytest.raises(ConfigError) as caught:
        LoRAConfig(r=0)
    assert str(caught.value) == "r must be above 0, got 0"


def test_a_resolved_config_is_written_with_sources_and_reads_back_the_same(read):
    resolved = read(RUN, "--lora.r", "16", "--training.extra", "{warmup_ratio: 0.1}")

    text = dump(resolved)

    assert "  r: 16  # --lora.r\n  alpha: 16.0  # default\n" in text
    assert read(text).config == resolved.config


def test_sections_are_immutable(read):
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        read(RUN).config.seed = 3
