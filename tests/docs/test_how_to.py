"""The pages for common jobs work as they stand, on tiny random models, and show what commands print."""

from pathlib import Path

import pytest

from tests.docs.worked import output_pattern, run_page, save_stand_ins

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in ROOT.glob("docs/**/*.md") if "run-in: suite" in page.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs_and_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed() -> str:
        out, err = capsys.readouterr()
        return out + err

    def compare(shown: str, output: str, form_only: bool) -> None:
        assert output_pattern(shown, form_only).fullmatch(output), f"the page shows\n{shown}\nand the command prints\n{output}"

    save_stand_ins(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_page(page, printed, compare)
