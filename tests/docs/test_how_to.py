"""The tutorial and the pages for common jobs run as they are, on tiny models, and show what commands print."""

from pathlib import Path

import pytest

from tests.docs.worked import JOBS, TUTORIAL, output_pattern, run_page, save_stand_ins


@pytest.mark.parametrize("page", [*JOBS, pytest.param(TUTORIAL, marks=pytest.mark.slow)], ids=lambda page: page.stem)
def test_the_page_runs_and_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed() -> str:
        out, err = capsys.readouterr()
        return out + err

    def compare(shown: str, output: str, form_only: bool) -> None:
        if not output_pattern(shown, form_only).fullmatch(output):
            pytest.fail(f"the page shows\n{shown}\nand the command prints\n{output}", pytrace=False)

    save_stand_ins(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_page(page, printed, compare)
