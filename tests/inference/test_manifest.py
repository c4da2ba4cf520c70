"""An adapter that is not what was written is not loaded."""

import json

import pytest

from smolora_core.checkpoints.manifest import MANIFEST
from smolora_core.checkpoints.staging import Checkpoint
from smolora_core.checkpoints.store import Store
from smolora_core.errors import CheckpointError, ModelLoadError
from smolora_core.inference.generate import load_adapter
from smolora_core.inference.loading import check_manifest

HINT = "; copy the folder again, or remove manifest.json if the change is intended"


def committed(folder, base):
    def write(checkpoint, directory):
        (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        (directory / "weights").write_bytes(b"1234")

    checkpoint = Checkpoint(step=1, model=None, tokenizer=None, metrics={}, config={})
    return Store(folder=folder, run_id="run").commit(checkpoint, [("one", write)], "adapter")


@pytest.fixture
def place(tmp_path):
    return committed(tmp_path, "a/base")


def message(folder):
    with pytest.raises(CheckpointError) as error:
        check_manifest(folder)
    return str(error.value)


def test_what_was_written_is_as_it_was(place):
    check_manifest(place)


def test_a_folder_without_a_manifest_may_hold_anything(place):
    (place / MANIFEST).unlink()
    (place / "weights").write_bytes(b"")
    check_manifest(place)


def test_further_files_do_no_harm(place):
    (place / "README.md").write_text("mine")
    check_manifest(place)


def test_a_file_that_is_missing_is_named(place):
    (place / "weights").unlink()
    assert message(place) == f"{place / 'weights'} is missing{HINT}"


def test_a_file_that_is_cut_off_is_named(place):
    (place / "weights").write_bytes(b"12")
    assert message(place) == f"{place / 'weights'} has 2 bytes, expected 4{HINT}"


def test_a_file_of_other_bytes_is_named(place):
    (place / "weights").write_bytes(b"1235")
    assert message(place) == f"{place / 'weights'} does not match its checksum{HINT}"


def test_every_file_that_is_wrong_is_named(place):
    (place / "weights").unlink()
    (place / "adapter_config.json").write_text("{}")
    assert len(message(place).splitlines()) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": {"weights": 3}}', '{"files": {"weights": {}}}'])
def test_a_damaged_manifest_is_an_error(place, content):
    (place / MANIFEST).write_text(content)
    assert message(place) == f"{place / MANIFEST} is damaged{HINT}"


def test_an_adapter_is_verified_before_its_base_is_loaded(place):
    (place / "weights").write_bytes(b"1235")
    with pytest.raises(CheckpointError) as error:
        load_adapter(place)
    assert error.value.exit_code == 1


def test_a_base_that_moved_is_said_together_with_the_manifest(tmp_path):
    place = committed(tmp_path, "/gone")
    with pytest.raises(ModelLoadError, match=r"adapter_config\.json and remove manifest\.json$"):
        load_adapter(place)
