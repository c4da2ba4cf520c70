"""Models of the tasks, each made once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_tasks import CASES


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a case's model."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = CASES[name].save(tmp_path_factory.mktemp("task-models") / "model")
        return made[name]

    return folder
