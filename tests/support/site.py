"""Fake distributions: a module and its metadata in a folder on `sys.path`, which is all that an installed plugin is."""

import importlib
from pathlib import Path
from textwrap import dedent

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
