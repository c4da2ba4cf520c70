"""Built-in steps as a config makes them, on their own and at work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import transformers

from smolora_core import DatasetError, Preprocessor, Problem
from smolora_core.config import convert
from smolora_core.data.ledger import Ledger
from smolora_core.data.preprocess import Context, Step, run_step
from smolora_core.data.sources.located import Located
from smolora_core.plugins import PluginManager, build

REGISTRY = PluginManager.create().registry


@attrs.frozen
class Outcome:
    rows: list[dict[str, Any]]
    ledger: Ledger


@pytest.fixture(scope="session")
def context(llama: Path) -> Context:
    return Context(transformers.AutoTokenizer.from_pretrained(llama), max_seq_length=512, seed=42)


@pytest.fixture(scope="session")
def step() -> Callable[..., Step]:
    """Make a step by its name and the options that a config gives it."""

    def make(name: str, **options: Any) -> Step:
        found = REGISTRY.resolve(Preprocessor, name)
        kind = found.component.options
        return Step(found, build(found, convert(options, kind, {}) if kind else None))

    return make


@pytest.fixture(scope="session")
def apply(step: Callable[..., Step], context: Context) -> Callable[..., list[Any]]:
    """Say what a step returns for each of some rows."""

    def run(name: str, *rows: dict[str, Any], told: Context = context, **options: Any) -> list[Any]:
        made = step(name, **options)
        further = (told,) if made.registered.component.context else ()
        return [made.run(row, *further) for row in rows]

    return run


def refuse(problem: Problem) -> None:
    raise DatasetError.of([problem])


@pytest.fixture(scope="session")
def send(context: Context) -> Callable[..., Outcome]:
    """Send rows through a step, with their account."""

    def run(rows: list[dict[str, Any]], made: Step) -> Outcome:
        ledger = Ledger(read=len(rows))
        located = (Located(row, f"rows.jsonl:{number}") for number, row in enumerate(rows, start=1))
        return Outcome([each.row for each in run_step(located, made, context, ledger, refuse)], ledger)

    return run
