"""Whatever a file or a flag holds: it resolves, or it is refused with an error that can be shown. Nothing else happens."""

import tempfile
from pathlib import Path

import attrs
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smolora_core.config import RunConfig, Setting, load_config, parse_flags, resolve
from smolora_core.config.document import Document
from smolora_core.config.dump import dump
from smolora_core.errors import ConfigError

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["auto", "none", "strip", "text"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars.filter(lambda key: key == key), inner, max_size=3),
)


def keys_of(kind):
    for field in attrs.fields(kind):
        yield field.name
        if attrs.has(field.type):
            yield from keys_of(field.type)


keys = st.sampled_from([*keys_of(RunConfig), "name", "path"])
documents = st.recursive(
    st.dictionaries(keys, scalars, max_size=3),
    lambda inner: st.dictionaries(keys, inner | scalars | st.lists(inner | scalars, max_size=3), max_size=5),
    max_leaves=20,
)
sound = st.fixed_dictionaries(
    {"model": st.text(), "data": st.fixed_dictionaries({"train": st.text()})},
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "output_dir": st.text(),
        "loss": st.text() | st.fixed_dictionaries({"name": st.text()}, optional={"gamma": st.floats(allow_nan=False)}),
        "lora": st.fixed_dictionaries({"dropout": st.floats(0, 1, exclude_max=True)}),
        "memory": st.sampled_from(["auto", "none"]) | st.lists(st.text(), max_size=3),
        "training": st.fixed_dictionaries({"extra": st.dictionaries(st.text(), scalars.filter(lambda x: x == x), max_size=3)}),
    },
)


def resolves_or_is_refused(make):
    refusal = None
    try:
        make()
    except ConfigError as error:
        refusal = error
    assert refusal is None or all(problem.what for problem in refusal.problems)


@given(st.dictionaries(st.text(), values, max_size=5) | documents)
def test_any_values(document):
    resolves_or_is_refused(lambda: resolve(Document(document, {})))


@given(documents | values)
@settings(max_examples=200)
def test_any_yaml(document):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        resolves_or_is_refused(lambda: load_config(path))


@given(st.text() | st.text(alphabet="abc:-[]{}&*!|>'\"#%@`, \n\t01.~?"), st.sampled_from(["run.yaml", "run.toml"]))
@settings(max_examples=300)
@example("? [a]\n: b", "run.yaml")
@example("a: !!timestamp x", "run.yaml")
@example("a: !!set {b}", "run.yaml")
@example("- !!omap [a: 1]", "run.yaml")
@example(f"seed = 0x{'f' * 5000}", "run.toml")
@example(f"[lora]\nalpha = 0x{'f' * 5000}", "run.toml")
@example("seed = 2024-01-01", "run.toml")
def test_any_text(text, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        resolves_or_is_refused(lambda: load_config(path))


@given(st.binary(), st.sampled_from(["run.yaml", "run.toml"]))
def test_any_bytes(data, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        resolves_or_is_refused(lambda: load_config(path))


flag_paths = st.lists(keys | st.text(max_size=5), min_size=1, max_size=4).map(".".join)


@given(st.lists(st.tuples(flag_paths, st.text() | st.sampled_from(["[a]", "{name: b}", "3", "auto"])), max_size=4))
@settings(max_examples=300)
def test_any_flags(flags):
    def load():
        file, given = parse_flags([f"--{path}={text}" for path, text in flags])
        assert file is None
        return load_config(None, given)

    resolves_or_is_refused(load)


@given(sound, st.lists(st.tuples(st.lists(keys, min_size=1, max_size=3), values), max_size=3))
def test_any_settings_over_a_sound_document(document, given):
    given = [Setting(tuple(path), value, "--flag") for path, value in given]
    resolves_or_is_refused(lambda: resolve(Document(document, {}), given))


@given(sound)
def test_what_resolves_is_written_so_that_it_reads_back_the_same(document):
    resolved = resolve(Document(document, {"": "given from Python"}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(dump(resolved), encoding="utf-8")
        assert load_config(path).config == resolved.config
