"""`smolora report`: the page of a run anew, and what is said of a folder that is none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from smolora_core.report.events import EventLog


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, with the shell standing beside it."""
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    EventLog(tmp_path / "out" / "events.jsonl", lambda event: None).emit("note", text="begun")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


def test_the_page_is_written_and_its_place_printed(out: Path, smolora) -> None:
    assert smolora("report", "out") == (0, "out/report.html\n", "")
    assert "begun" in (out / "report.html").read_text(encoding="utf-8")


def test_programs_get_json(out: Path, smolora) -> None:
    status, printed, _ = smolora("report", "out", "--json")
    assert (status, json.loads(printed)) == (0, {"report": "out/report.html"})


@pytest.mark.parametrize(
    ("given", "reason", "hint"),
    [
        ("out/adapter", "No such file or directory", "did you mean 'out'?"),
        (".", "No such file or directory", "did you mean 'out'?"),
        ("otu", "No such file or directory", "did you mean 'out'?"),
        ("elsewhere", "No such file or directory", "give the folder that 'smolora train' wrote"),
        ("out/events.jsonl", "Not a directory", ""),
        ("x" * 5000, "File name too long", ""),
    ],
)
def test_a_folder_that_is_no_run_gets_a_line(out: Path, smolora, given: str, reason: str, hint: str) -> None:
    line = f"no run in {given!r} (events.jsonl: {reason}){f'; {hint}' if hint else ''}\n"
    assert smolora("report", given) == (2, "", line)


def test_torch_is_not_imported(out: Path) -> None:
    code = (
        "import sys, smolora_core.cli as c\n"
        "assert c.main(['report', 'out']) == 0\n"
        "assert not {'torch', 'transformers', 'peft', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
