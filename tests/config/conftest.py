"""Configs written to real files and read back."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import settings

from smolora_core.config import Resolved, load_config, parse_flags
from smolora_core.errors import ConfigError

settings.register_profile("smolora", deadline=None)
settings.load_profile("smolora")

Read = Callable[..., Resolved]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Write a config file into an otherwise empty folder and read it, with flags as on a command line."""
    monkeypatch.chdir(tmp_path)

    def read(text: str | bytes, *flags: str, name: str = "run.yaml") -> Resolved:
        Path(name).write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return load_config(Path(name), parse_flags(flags)[1])

    return read


@pytest.fixture
def complaints(read: Read) -> Callable[..., list[str]]:
    """Read a config that cannot be used and give what is said about it, line by line."""

    def complaints(text: str | bytes, *flags: str, name: str = "run.yaml") -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, *flags, name=name)
        assert str(caught.value) == "\n".join(map(str, caught.value.problems))
        return str(caught.value).split("\n")

    return complaints
