"""DatasetHandler and prepare_dataset: the guide's names over the same pipeline."""

import subprocess
import sys
from pathlib import Path

import pytest

from smolora_core import ConfigError, DatasetError, DatasetHandler, Drop, PluginError, prepare_dataset


def test_functions_names_and_options_make_a_chain() -> None:
    def long_enough(row):
        return row if len(row["review"]) > 3 else Drop("short")

    handler = DatasetHandler("review")
    handler.add_preprocessor("strip").add_preprocessor(long_enough).add_preprocessor({"name": "chunk-words", "size": 2})
    found = handler.process_dataset([{"review": " a fine film "}, {"review": " no  "}])
    assert found["review"][:] == ["a fine ", "film"]
    assert (handler.ledger.read, handler.ledger.added, handler.ledger.kept, handler.ledger.dropped) == (2, 1, 2, 1)
    assert handler.ledger.reasons == {"long-enough: short": 1}


def test_a_row_without_text_is_named_or_dropped() -> None:
    rows = [{"text": "good"}, {"text": None}, {"review": "bad"}]
    with pytest.raises(DatasetError, match=r"^dataset:row 2 column 'text' must be text, got NoneType$"):
        DatasetHandler().process_dataset(rows)
    handler = DatasetHandler(on_bad_row="drop")
    assert len(handler.process_dataset(rows)) == 1
    assert handler.ledger.dropped == 2


def test_an_unknown_step_or_option_is_said_when_the_chain_is_used() -> None:
    with pytest.raises(PluginError, match=r"no preprocessor is named 'strop'; did you mean 'strip'"):
        DatasetHandler().add_preprocessor("strop").process_dataset([{"text": "good"}])
    with pytest.raises(PluginError, match="unknown key 'sise'"):
        DatasetHandler().add_preprocessor({"name": "chunk-words", "sise": 3}).process_dataset([{"text": "good"}])


def test_a_file_of_any_name_is_read_as_the_kind_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "reviews.dat").write_text("text,stars\none two three,5\n")
    found = prepare_dataset(tmp_path / "reviews.dat", chunk_size=2, file_type="csv")
    assert found[:] == {"text": ["one two ", "three"], "stars": ["5", "5"]}


def test_an_unknown_file_type_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        prepare_dataset("reviews.dat", file_type="cvs")
    what = "file_type must be one of conll, csv, json, jsonl, parquet, text, tsv, got 'cvs'"
    assert str(error.value) == f"prepare_dataset() {what}; did you mean 'csv'?"


def test_importing_them_imports_no_torch() -> None:
    program = "import sys; from smolora_core import DatasetHandler; assert 'torch' not in sys.modules; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
