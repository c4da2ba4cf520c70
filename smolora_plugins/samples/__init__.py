"""Sample prompts: what the model writes at every evaluation, in the run's events."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolora_core import ConfigError, DatasetError, Problem, RunContext, SmoLoRAError, hookimpl
from smolora_core.config import RunConfig
from smolora_core.data import Reading, describe_type, open_source

if TYPE_CHECKING:
    from transformers import TrainerCallback

_WHERE = "training.sample_prompts:"


@hookimpl
def smolora_check_config(config: RunConfig) -> Iterable[Problem]:
    """Report prompts that cannot be read, or that no evaluation would answer."""
    if config.training.sample_prompts and config.data.eval is None:
        yield Problem("prompts are answered at evaluations, and there are none", where=_WHERE, hint="set data.eval")
    try:
        read_prompts(config)
    except SmoLoRAError as error:
        yield from error.problems


@hookimpl
def smolora_callbacks(run: RunContext, row_format: str) -> "Iterable[TrainerCallback]":
    """Answer the prompts in the process that writes events."""
    if run.leads and (prompts := read_prompts(run.config)):
        from smolora_plugins.samples.callback import AnswerPrompts

        yield AnswerPrompts(prompts, run, row_format)


def read_prompts(config: RunConfig) -> tuple[str, ...]:
    """Return the prompts of a list, the lines of a text file, or the prompt column of any other file.

    Raises:
        ConfigError: there is no such file.
        DatasetError: the file cannot be read, contains no prompts, or a row of it has none.
    """
    given = config.training.sample_prompts
    if not isinstance(given, str):
        return given
    if not Path(given).expanduser().is_file():
        raise ConfigError(f"no file {given!r}", where=_WHERE, hint="write the prompts themselves as a list")
    source = open_source(given, _WHERE, Reading.of(config.data))
    if source.documents:
        lines = (line for located in source.rows() for line in located.row["text"].split("\n"))
        prompts = tuple(line for line in lines if line.strip())
    else:
        prompts = tuple(_prompt(located.row, config.data.prompt_field, located.where) for located in source.rows())
    if not prompts:
        raise DatasetError("contains no prompts", where=given)
    return prompts


def _prompt(row: dict[str, Any], column: str, where: str) -> str:
    if column not in row:
        raise DatasetError(f"has no column {column!r}", where=where, hint=f"it has: {', '.join(row)}")
    if not isinstance(row[column], str):
        raise DatasetError(f"column {column!r} must be text, got {describe_type(row[column])}", where=where)
    return row[column]
