"""Every run leaves a page, whatever became of it, unless the plugin is disabled."""

from pathlib import Path

import pytest

from smolora_core import RunContext, hookimpl, train
from tests.support.runs import config_of, events, rows_in


class Reporter:
    """Reports something at the very end of a run, and then fails."""

    @hookimpl
    def smolora_run_finished(self, run: RunContext) -> None:
        run.warn("uploaded in part")
        raise OSError("no space left")


class Failing(Reporter):
    @hookimpl
    def smolora_adapter_attached(self) -> None:
        raise ZeroDivisionError("not a model")


def test_the_page_shows_what_other_plugins_reported_at_the_end_of_a_run(llama, tmp_path):
    train(config_of(llama, rows_in(tmp_path), tmp_path / "run"), plugins=[Reporter()])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Finished" in page
    assert "uploaded in part" in page
    assert "OSError: no space left" in page


def test_a_failed_run_has_a_page_too(llama, tmp_path):
    with pytest.raises(ZeroDivisionError):
        train(config_of(llama, rows_in(tmp_path), tmp_path / "run"), plugins=[Failing()])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "ZeroDivisionError: not a model" in page
    assert "uploaded in part" in page
    assert (tmp_path / "run" / "last_error.json").exists()


def test_a_page_that_cannot_be_written_is_a_warning(llama, tmp_path):
    class Blocking:
        @hookimpl
        def smolora_run_finished(self, run: RunContext) -> None:
            (run.folder / "report.html" / "of-somebody-else").mkdir(parents=True)

    outcome = train(config_of(llama, rows_in(tmp_path), tmp_path / "run"), plugins=[Blocking()])
    (warning,) = (each["text"] for each in events(tmp_path / "run", "warning") if "report.html" in each["text"])
    assert outcome.status == "finished"
    assert warning.endswith("raised by plugin 'page' (smolora 0.1.0) while calling smolora_run_finished")


def test_without_the_plugin_there_is_no_page_and_none_is_announced(place: Path, smolora):
    status, out, _ = smolora("train", "run.yaml", "--no-plugin", "page")
    assert status == 0
    assert not (place / "out" / "report.html").exists()
    assert "report" not in out
