"""Run the quick tests with the lowest and with the highest dependency versions that pyproject.toml allows.

    python -m tests.versions
    python -m tests.versions --only highest --folder /tmp/versions
    python -m tests.versions --only lowest --pytest-args -x tests/lora

For each of the two, uv resolves the dependencies (`--resolution lowest-direct` or `--resolution highest`) and installs them and
this project with its `test` extra into a new virtual environment outside the checkout, in which `pytest -m "not slow"` runs.
A table of versions and results ends the output; the exit status is 1 if anything failed.

torch is always a CPU build: uv takes it from PyTorch's index of CPU builds. Where that index cannot be reached, put wheels of
CPU builds in a folder and pass `--torch-wheels FOLDER`; the lowest or the highest of them is used. A resolution that contains a
CUDA package is refused before anything is downloaded.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[1]
RESOLUTIONS = {"lowest": "lowest-direct", "highest": "highest"}
CUDA = re.compile(r"^(?:nvidia|cuda|triton)\b[\w.-]*", re.MULTILINE)


class Outcome(NamedTuple):
    """The result of one resolution: versions of the direct dependencies, and what pytest reported."""

    passed: bool
    tests: str
    seconds: float
    versions: dict[str, str]


def direct_dependencies() -> list[str]:
    """List the names in pyproject.toml's dependencies, in its order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [canonicalize_name(Requirement(each).name) for each in project["dependencies"]]


def find_uv() -> str:
    """Find uv beside this Python or on the path."""
    beside_python = Path(sys.executable).parent
    if uv := shutil.which("uv", path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', os.defpath)}"):
        return uv
    raise SystemExit('uv is not installed: pip install -c tests/constraints.txt -e ".[dev]"')


def choose_torch(wheels: Path, name: str) -> Version:
    """Choose the lowest or the highest version of torch among the wheels in a folder that fit this Python."""
    usable = set(sys_tags())
    parsed = (parse_wheel_filename(file.name) for file in wheels.glob("torch-*.whl"))
    versions = [version for _, version, _, tags in parsed if tags & usable]
    if not versions:
        raise SystemExit(f"{wheels} holds no wheel of torch for this Python")
    return min(versions) if name == "lowest" else max(versions)


def torch_source(wheels: Path | None, name: str, folder: Path) -> list[str]:
    """Make uv's options that restrict torch to CPU builds."""
    if wheels is None:
        return ["--torch-backend", "cpu"]
    constraint, version = folder / f"{name}-torch.txt", choose_torch(wheels, name)
    constraint.write_text(f"torch=={version}\n", encoding="utf-8")
    print(f"   torch {version} is the {name} in {wheels}; pyproject.toml may allow others", flush=True)
    return ["--find-links", str(wheels), "--constraints", str(constraint)]


def install(uv: str, name: str, folder: Path, wheels: Path | None) -> Path | None:
    """Make a virtual environment with one resolution; return its Python, or None if resolving or installing failed."""
    place, pinned = folder / name, folder / f"{name}.txt"
    source = torch_source(wheels, name, folder)
    resolve = [uv, "pip", "compile", "pyproject.toml", "--extra", "test", "--python", sys.executable]
    resolve += ["--resolution", RESOLUTIONS[name], "--quiet", "--no-header", "--no-annotate", "--output-file", str(pinned)]
    pinned.unlink(missing_ok=True)  # uv would prefer the versions in it
    if subprocess.run([*resolve, *source], cwd=ROOT).returncode:
        return None
    if found := CUDA.search(pinned.read_text(encoding="utf-8")):
        print(f"{name}: refused, the resolution contains {found[0]}: torch would be a CUDA build", file=sys.stderr)
        return None
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    into = [uv, "pip", "install", "--quiet", "--python", str(python)]
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)],
        [*into, *source, "--requirements", str(pinned)],
        [*into, "--no-deps", "--editable", str(ROOT)],
    ):
        if subprocess.run(command, cwd=ROOT).returncode:
            return None
    return python


def installed(uv: str, python: Path) -> dict[str, str]:
    """Read the installed versions of the direct dependencies."""
    listing = [uv, "pip", "list", "--python", str(python), "--format", "json"]
    packages = json.loads(subprocess.run(listing, capture_output=True, text=True, check=True).stdout)
    versions = {canonicalize_name(each["name"]): each["version"] for each in packages}
    return {name: versions[name] for name in direct_dependencies()}


def run_tests(python: Path, report: Path, arguments: Sequence[str]) -> tuple[bool, str]:
    """Run the quick tests; return whether they passed, and how many."""
    report.unlink(missing_ok=True)
    # Tests start `smolora` and `python` by name.
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    command = [str(python), "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={report}", *arguments]
    status = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path, "VIRTUAL_ENV": str(python.parents[1])}
    ).returncode
    if not report.exists():
        return False, f"pytest exited with {status}"
    suites = list(ElementTree.parse(report).iter("testsuite"))
    tests, skipped, failures, errors = (
        sum(int(suite.attrib[key]) for suite in suites) for key in ("tests", "skipped", "failures", "errors")
    )
    counts = {"passed": tests - skipped - failures - errors, "failed": failures, "errors": errors, "skipped": skipped}
    return status == 0, ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no tests"


def check(uv: str, name: str, folder: Path, wheels: Path | None, arguments: Sequence[str]) -> Outcome:
    """Install one resolution, print its versions and run the quick tests with it."""
    print(f"== {name}: uv --resolution {RESOLUTIONS[name]}", flush=True)
    python = install(uv, name, folder, wheels)
    if python is None:
        return Outcome(False, "not installed", 0.0, {})
    versions = installed(uv, python)
    print("\n".join(f"   {package} {version}" for package, version in versions.items()), flush=True)
    began = time.monotonic()
    passed, tests = run_tests(python, folder / f"{name}.xml", arguments)
    return Outcome(passed, tests, time.monotonic() - began, versions)


def print_table(outcomes: dict[str, Outcome]) -> None:
    """Print one column for each resolution: versions, result, counts, seconds."""
    rows = [["resolution", *outcomes]]
    rows += [[package, *(each.versions.get(package, "-") for each in outcomes.values())] for package in direct_dependencies()]
    rows.append(["quick tests", *("passed" if each.passed else "failed" for each in outcomes.values())])
    rows.append(["", *(each.tests for each in outcomes.values())])
    rows.append(["seconds", *(f"{each.seconds:.0f}" for each in outcomes.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the resolutions that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.versions", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=RESOLUTIONS, help="check one of the two resolutions")
    parser.add_argument(
        "--folder", type=Path, help="keep the environments and pytest's reports here; a temporary folder otherwise"
    )
    parser.add_argument("--torch-wheels", type=Path, metavar="FOLDER", help="take torch from CPU wheels in this folder")
    parser.add_argument(
        "--pytest-args", nargs=argparse.REMAINDER, default=[], metavar="ARGUMENT", help="pass everything that follows to pytest"
    )
    chosen = parser.parse_args(arguments)
    if chosen.folder and chosen.folder.resolve().is_relative_to(ROOT):
        parser.error("--folder must be outside the checkout")
    uv, wheels = find_uv(), chosen.torch_wheels and chosen.torch_wheels.resolve()
    with tempfile.TemporaryDirectory(prefix="smolora-versions-") as temporary:
        folder = (chosen.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        names = [chosen.only] if chosen.only else list(RESOLUTIONS)
        outcomes = {name: check(uv, name, folder, wheels, chosen.pytest_args) for name in names}
    print_table(outcomes)
    return 0 if all(each.passed for each in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
