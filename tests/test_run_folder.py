"""The folder of a run: what cannot be one is said before anything is loaded."""

import os
from pathlib import Path

import pytest

from smolora_core.config import resolve
from smolora_core.config.syntax import Document
from smolora_core.errors import ConfigError
from smolora_core.run_folder import claim, locate


def located(folder: object, data: object = "rows.jsonl") -> Path:
    values = {"model": "./tiny", "data": {"train": str(data)}, "output_dir": str(folder)}
    return locate(resolve(Document(values, {"output_dir": "run.yaml:2"})))


def test_a_folder_that_is_not_there_yet_will_do(tmp_path: Path) -> None:
    assert located(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert located("~/run") == tmp_path / "run"


def test_a_file_cannot_be_the_folder_or_above_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below"):
        with pytest.raises(ConfigError) as caught:
            located(folder)
        assert str(caught.value) == f"run.yaml:2 output_dir {str(folder)!r} cannot be a folder: {str(file)!r} is a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written: no permission in"):
        located(tmp_path / "run")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        located(tmp_path / ("x" * 400))


def test_a_run_may_not_lie_in_the_folder_of_its_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        located(tmp_path / "runs", data=tmp_path)
    assert str(caught.value) == (
        f"run.yaml:2 output_dir {str(tmp_path / 'runs')!r} lies in the data folder {str(tmp_path)!r}; choose another"
    )


def test_what_is_not_ours_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert claim(tmp_path) is None
    (tmp_path / "run.yaml").write_text("")
    assert claim(tmp_path) == tmp_path / "previous-1"
    (tmp_path / "run.yaml").write_text("")
    assert claim(tmp_path) == tmp_path / "previous-2"
    assert (tmp_path / "notes.txt").read_text() == "mine"
