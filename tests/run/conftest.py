"""Runs that can be stopped and continued, with a whole configuration each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smolora_core
from tests.support.runs import config_of, rows_in


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return rows_in(tmp_path)


@pytest.fixture
def train(llama: Path, rows: Path, tmp_path: Path) -> Callable[..., Any]:
    """Train in `run` with changes laid over the config."""

    def run(
        resume: str | Path = "never", overrides: tuple[str, ...] = (), plugins: tuple[object, ...] = (), **changes: Any
    ) -> Any:
        values = config_of(llama, rows, tmp_path / "run", **changes)
        return smolora_core.train(values, resume=resume, overrides=overrides, plugins=plugins)

    return run
