"""The folder of a run: what cannot be one is said before anything is loaded."""

import json
import os
import shutil
from pathlib import Path

import pytest

from smolora_core.checkpoints.disk import Disk
from smolora_core.checkpoints.lock import RUN, lock_folder, run_id_of
from smolora_core.checkpoints.store import Store
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.errors import ConfigError
from smolora_core.run.folder import check_output_dir, move_aside, open_folder
from tests.support.disks import commit, killed_at, names


def located(folder: object, data: object = "rows.jsonl") -> Path:
    values = {"model": "./tiny", "data": {"train": str(data)}, "output_dir": str(folder)}
    return check_output_dir(resolve(Document(values, {"output_dir": "run.yaml:2"})))


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
        f"run.yaml:2 output_dir {str(tmp_path / 'runs')!r} is inside the data folder {str(tmp_path)!r}; choose another folder"
    )


def test_what_is_not_ours_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert move_aside(tmp_path) is None
    (tmp_path / "run.yaml").write_text("")
    assert move_aside(tmp_path) == tmp_path / "previous-1"
    (tmp_path / "run.yaml").write_text("")
    assert move_aside(tmp_path) == tmp_path / "previous-2"
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two checkpoints and its files."""
    folder = tmp_path / "run"
    with lock_folder(folder) as held:
        for step in (2, 4):
            commit(Store(folder=folder, run_id=held.run_id), step)
    for name in ("run.yaml", "events.jsonl", "ledger.json"):
        (folder / name).write_text(name)
    return folder


def opened(folder: Path, resume: str = "never") -> tuple[int | None, tuple[str, ...]]:
    """Open a run's folder: the step it goes on from, and what is said."""
    with open_folder(folder, resume) as found:
        return found.checkpoint and found.checkpoint.manifest.step, found.notes


def test_a_run_that_begins_anew_leaves_the_earlier_one_as_it_was(run: Path) -> None:
    run_id, before = run_id_of(run), names(run)
    aside = run / "previous-1"
    said = f"an earlier run was moved to {aside}; resume it with --output_dir {aside} --resume auto"
    assert opened(run) == (None, (said,))
    assert names(aside) == before - {"run.lock"}
    assert (run_id_of(aside), names(run)) == (run_id, {"previous-1", "run.json", "run.lock"})
    assert run_id_of(run) not in (run_id, None)
    assert opened(aside, "auto") == (4, ())


def test_what_cannot_be_gone_on_with_is_only_said_to_be_moved(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("")
    assert opened(tmp_path) == (None, (f"an earlier run was moved to {tmp_path / 'previous-1'}",))


def test_where_there_is_nothing_to_go_on_from_it_is_said(tmp_path: Path) -> None:
    assert opened(tmp_path / "run", "auto") == (
        None,
        (f"no checkpoint to resume in '{tmp_path / 'run'}'; starting from scratch",),
    )


@pytest.mark.parametrize("content", [None, "torn"])
def test_a_run_whose_record_is_lost_goes_on(run: Path, content: str | None) -> None:
    run_id = run_id_of(run)
    (run / RUN).unlink()
    if content:
        (run / RUN).write_text(content)
    step, notes = opened(run, "auto")
    assert (step, run_id_of(run)) == (4, run_id)
    assert notes == ("run.json is missing or damaged; recovered the run id from checkpoint-4",)


def test_an_earlier_run_is_whole_wherever_the_claim_was_killed(run: Path, tmp_path: Path) -> None:
    there, run_id = names(run) - {"run.lock"}, run_id_of(run)
    number, killed = 0, True
    while killed:
        number += 1
        folder = Path(shutil.copytree(run, tmp_path / f"run-{number}"))

        def claiming(disk: Disk, between: object, folder: Path = folder) -> None:
            move_aside(folder, disk)

        killed = killed_at(number, middle=False, save=claiming)
        begun = bool(list(folder.glob(".claiming-*")))
        step, notes = opened(folder, "auto")
        moved = (folder / "previous-1").exists()
        whole = folder / "previous-1" if moved else folder
        assert (step, run_id_of(whole)) == (None if moved else 4, run_id)
        assert (names(whole) - {"run.lock"}) == there
        assert any("; resume it with --output_dir" in note for note in notes) == begun
        assert opened(whole, "auto") == (4, ())
        assert not list(folder.glob(".claiming-*"))
    assert number > len(there)


def test_a_name_alone_is_a_checkpoint_of_the_run(run: Path) -> None:
    assert opened(run, "checkpoint-2") == (2, ())


def test_a_run_that_was_moved_is_gone_on_with_where_it_is(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "my run")
    for named in (moved, moved / "checkpoint-2"):
        with pytest.raises(ConfigError) as caught:
            opened(run, str(named))
        assert str(caught.value) == (
            f"--resume '{named}' is not in output_dir '{run}'; to resume there, add --output_dir '{moved}'"
        )
    assert not run.exists()


WRONG = {
    "checkpoint-3": "--resume 'checkpoint-3' is not a checkpoint of the run in '{run}'; known: checkpoint-2, checkpoint-4",
    "nowhere": "--resume 'nowhere' is not a checkpoint of the run in '{run}'; known: checkpoint-2, checkpoint-4",
    "{run}/run.yaml": ("--resume '{run}/run.yaml' is a file, not a checkpoint; pass 'auto', a checkpoint or the run's folder"),
    "x\0y": "--resume 'x\\x00y' cannot be used (embedded null byte)",
    "~nobodyxx/x": "--resume '~nobodyxx/x' cannot be used (Could not determine home directory.)",
}


@pytest.mark.parametrize("given", WRONG)
def test_what_cannot_be_gone_on_from_is_refused(run: Path, given: str) -> None:
    before = json.loads((run / RUN).read_text())["run_id"], names(run)
    with pytest.raises(ConfigError) as caught:
        opened(run, given.format(run=run))
    assert str(caught.value) == WRONG[given].format(run=run)
    assert (run_id_of(run), names(run)) == before
