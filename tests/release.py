"""Build a release, check it, and assemble its changelog; nothing is uploaded.

    python -m tests.release                        # print the changelog section, build and check everything
    python -m tests.release --changelog            # only print the changelog section
    python -m tests.release --changelog --write    # print it and move the fragments into docs/changelog.md

`python -m build` makes the sdist, and from it the wheel, in `dist/`. Both must hold every tracked file of the two packages, the
sdist also README.md, LICENSE and the rest of the checkout. The wheel is installed with `-c tests/constraints.txt` into a new
virtual environment, where `smolora --version` and `smolora demo` run offline in an empty folder outside the checkout.

The version is the one in pyproject.toml. Each file in docs/changelog/ is one fragment. Its title is its `# ` heading, or else
its first words up to a full stop or a colon. Fragments are ordered by the commit that added them; uncommitted ones come last.
"""

import argparse
import datetime
import email
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FRAGMENTS = ROOT / "docs" / "changelog"
CHANGELOG = ROOT / "docs" / "changelog.md"
TITLE = "# Changelog\n"
PACKAGES = ("smolora_core", "smolora_plugins")
# Named one by one, so that a file which is no longer tracked is missed as well.
NEEDED = (
    "smolora_core/py.typed",
    "smolora_core/__init__.pyi",
    "smolora_plugins/page/page.html.j2",
    "smolora_plugins/py.typed",
    "smolora_plugins/demo/base/config.json",
    "smolora_plugins/demo/base/model.safetensors",
    "smolora_plugins/demo/base/tokenizer.json",
)


class ReleaseError(Exception):
    """Something about the release is not as it must be."""


def project_version() -> str:
    """Read the version from pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def git(*arguments: str) -> list[str]:
    """Run git in the checkout and return the lines of its output."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return the wheel and the sdist."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("smolora-*.whl"), *folder.glob("smolora-*.tar.gz")):
        old.unlink()
    # Not in the checkout, where a folder named build/ would be imported instead.
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], cwd=folder, check=True)
    version = project_version()
    wheel, sdist = folder / f"smolora-{version}-py3-none-any.whl", folder / f"smolora-{version}.tar.gz"
    if missing := [file.name for file in (wheel, sdist) if not file.exists()]:
        raise ReleaseError(f"not built: {', '.join(missing)}")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    """Compare the files in the wheel and the sdist with the tracked ones, and read the wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        info = next(name.partition("/")[0] for name in inside if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in git("ls-files", *PACKAGES) if (ROOT / name).exists()}
    licence = f"{info}/licenses/LICENSE"
    problems = [f"the wheel lacks {name}" for name in sorted({*tracked, *NEEDED, licence} - inside)]
    problems += [f"the wheel should not hold {name}" for name in sorted(inside - tracked) if not name.startswith(f"{info}/")]
    wanted = {*tracked, *NEEDED, "README.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "tests/constraints.txt"}
    problems += [f"the sdist lacks {name}" for name in sorted(wanted - source)]
    if metadata["Version"] != project_version():
        problems.append(f"the wheel's version is {metadata['Version']}")
    description = metadata.get_payload(decode=True)
    if (
        not isinstance(description, bytes)
        or description.decode().strip() != (ROOT / "README.md").read_text(encoding="utf-8").strip()
    ):
        problems.append("the wheel's description is not README.md")
    if problems:
        raise ReleaseError("\n".join(problems))
    print(f"contents: {len(inside)} files in the wheel, {len(source)} in the sdist")


def check_installed(wheel: Path, folder: Path) -> None:
    """Install the wheel into a new virtual environment in a folder and run `smolora --version` and `smolora demo` there."""
    place, empty = folder / "venv", folder / "empty"
    empty.mkdir()
    venv.create(place, with_pip=True)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | {"HF_HUB_OFFLINE": "1"}

    def run(*command: str, **options: bool) -> subprocess.CompletedProcess[str]:
        program = str(programs / command[0])
        return subprocess.run([program, *command[1:]], cwd=empty, env=environment, text=True, check=True, **options)

    constraints = str(ROOT / "tests" / "constraints.txt")
    run("python", "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel))
    run("python", "-m", "pip", "check")
    told = run("smolora", "--version", capture_output=True).stdout.strip()
    if told != project_version():
        raise ReleaseError(f"smolora --version prints {told!r}")
    run("smolora", "demo")
    for name in ("adapter/adapter_model.safetensors", "report.html"):
        if not (empty / "smolora-demo" / name).is_file():
            raise ReleaseError(f"smolora demo wrote no {name}")
    print(f"installed: smolora {told}, and the demo ran")


def fragments() -> list[Path]:
    """List the changelog fragments, the oldest by its first commit first; those without a commit come last."""
    added = git("log", "--reverse", "--diff-filter=A", "--no-renames", "--format=", "--name-only", "--", str(FRAGMENTS))
    order = {name: position for position, name in reversed(list(enumerate(added)))}
    return sorted(
        FRAGMENTS.glob("*.md"), key=lambda file: (order.get(file.relative_to(ROOT).as_posix(), len(order)), file.name)
    )


def split_title(text: str) -> tuple[str, str]:
    """Split a fragment into its title and its body."""
    first, _, rest = text.strip().partition("\n")
    if first.startswith("# "):
        return first.removeprefix("# ").strip(), rest.strip()
    title, *body = re.split(r"[.:]\s+", text.strip(), maxsplit=1)
    return title.replace("\n", " "), "".join(each[:1].upper() + each[1:] for each in body)


def written_section() -> str:
    """Return the section of this version in docs/changelog.md, or nothing."""
    written = CHANGELOG.read_text(encoding="utf-8") if CHANGELOG.exists() else ""
    found = re.search(rf"^## {re.escape(project_version())} .*?(?=^## |\Z)", written, re.MULTILINE | re.DOTALL)
    return f"{found[0].strip()}\n" if found else ""


def changelog_section(date: datetime.date) -> str:
    """Assemble the section of this version from the fragments, or find the one that was written before."""
    files, written = fragments(), written_section()
    if files and written:
        raise ReleaseError(
            f"docs/changelog.md already has a section for {project_version()}: set the next version in pyproject.toml"
        )
    if not files and not written:
        raise ReleaseError("docs/changelog/ holds no fragment")
    parts = [split_title(file.read_text(encoding="utf-8")) for file in files]
    blocks = [f"## {project_version()} ({date})", *(f"### {title}\n\n{body}".strip() for title, body in parts)]
    return written or "\n\n".join(blocks) + "\n"


def write_changelog(section: str) -> None:
    """Put a section on top of docs/changelog.md and delete the fragments it was made from."""
    if written_section():
        raise ReleaseError(f"docs/changelog.md already has a section for {project_version()}")
    before = CHANGELOG.read_text(encoding="utf-8") if CHANGELOG.exists() else TITLE
    older = before.removeprefix(TITLE).strip()
    CHANGELOG.write_text("\n".join(filter(None, (TITLE, section, older and f"{older}\n"))), encoding="utf-8")
    for file in fragments():
        file.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and check a release and assemble its changelog."""
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--changelog", action="store_true", help="only print the changelog section; build nothing")
    parser.add_argument("--write", action="store_true", help="also move the fragments into docs/changelog.md")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", metavar="FOLDER", help="write wheel and sdist here")
    chosen = parser.parse_args(arguments)
    try:
        section = changelog_section(datetime.datetime.now(datetime.UTC).date())
        if chosen.write:
            write_changelog(section)
        print(section)
        if not chosen.changelog:
            if changed := git("status", "--porcelain"):
                print(f"warning: {len(changed)} files are not as they were committed", file=sys.stderr)
            wheel, sdist = build(chosen.dist.resolve())
            check_contents(wheel, sdist)
            with tempfile.TemporaryDirectory(prefix="smolora-release-") as folder:
                check_installed(wheel, Path(folder))
            print(f"release: {wheel} and {sdist.name}")
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: {shlex.join(error.cmd)} exited with {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
