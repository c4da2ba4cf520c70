"""What the documentation says is true: examples run, references are what the code makes."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import smolora_core
from smolora_core.config import resolve
from smolora_core.config.document import read_document
from smolora_core.hookspecs import CONTRIBUTIONS
from tests.docs.worked import WORKED

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WORKED], ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_run(page: Path, tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The examples stand in a folder with a model and rows, as their reader does.
    shutil.copytree(llama, tmp_path / "models" / "tiny")
    rows = [json.dumps({"text": f"The film was good, said {number} of us"}) for number in range(40)]
    (tmp_path / "reviews.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    document = Sybil([PythonCodeBlockParser()], path=str(page.parent)).parse(page)
    for example in document:
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_yaml_examples_are_configs(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        assert resolve(read_document(file)).config.model.path


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_generated_references_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, page in module.PAGES.items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == page(), f"docs/reference/{name} is stale: run python docs/generate.py"


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    listed = {*re.findall(r"^((?:tutorial|how-to|reference|explanation)/[\w-]+)$", index, re.M)}
    folders = ("tutorial", "how-to", "reference", "explanation")
    assert listed == {f"{folder}/{page.stem}" for folder in folders for page in (ROOT / "docs" / folder).glob("*.md")}


def test_the_library_reference_describes_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "library.md").read_text(encoding="utf-8")
    described = {*re.findall(r"^\.\. (?:auto|py:)\w+:: (?:smolora_core\.)?(\w+)$", text, re.M)}
    assert {*dir(smolora_core)} <= described


def test_every_hook_has_an_example_in_its_docstring() -> None:
    from smolora_core import hookspecs

    for name in dir(hookspecs):
        if name.startswith("smolora_"):
            assert "@hookimpl" in getattr(hookspecs, name).__doc__, name
    assert len(CONTRIBUTIONS) == 6


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_shows_examples_as_code(tmp_path: Path) -> None:
    for needed in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(needed)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "doctrees"),
        "docs",
        str(tmp_path / "html"),
    ]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    for page, example in (("hooks", "def smolora_targets"), ("library", "metrics = lora.train")):
        html = (tmp_path / "html" / "reference" / f"{page}.html").read_text(encoding="utf-8")
        blocks = re.findall(r'<div class="highlight-python.*?</div>', html, re.S)
        assert any(example in re.sub(r"<[^>]+>", "", block) for block in blocks)


def test_readme_holds_the_two_commands_on_one_line_each() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "pip install -c tests/constraints.txt . && smolora demo" in lines
    assert 'pip install -c tests/constraints.txt -e ".[test]" && pytest' in lines
