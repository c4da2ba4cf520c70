"""Fake distributions: a module and its metadata in a folder on `sys.path`, which is all that an installed plugin is."""

import importlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

_IMPORTS = """\
import attrs
from smolora_core import CheckpointWriter, Loss, MemoryStrategy, Preprocessor, Problem, Targets, Task, hookimpl
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, source: str, *, version: str = "1.2", plugin: str = "", module: str = "") -> Path:
        """Install a distribution; its entry point and its module have its name unless told otherwise."""
        module = module or name
        metadata = self.folder / f"{name}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[smolora]\n{plugin or name} = {module}\n")
        path = self.folder / f"{module}.py"
        path.write_text(_IMPORTS + dedent(source))
        importlib.invalidate_caches()
        return path

    def add_loss(self, distribution: str, name: str, *, replaces: str | None = None, version: str = "1.2") -> Path:
        """Install a distribution that offers one loss and nothing else."""
        source = f"""
            @hookimpl
            def smolora_losses():
                yield Loss(name={name!r}, summary="a loss", implementation="{distribution}:loss", replaces={replaces!r})

            def loss(logits, targets):
                return logits
        """
        return self.add(distribution, source, version=version)


@pytest.fixture(scope="session")
def installed_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages beside this file with pip and give the interpreter that has them, next to all that this one has."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("installed")
    sources = shutil.copytree(Path(__file__).parent / "packages", folder / "packages")
    environment = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", environment], check=True)
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    # The system of a virtual environment is not the one that made it, whose packages, editable ones too, come by a .pth file.
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site_packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    here = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    lines = [f"import site; site.addsitedir({path!r})" for path in here]
    (site_packages / "running.pth").write_text("\n".join(lines) + "\n")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "pip", "install", *offline, *sorted(sources.iterdir())], check=True)
    return python


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield Site(folder)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
