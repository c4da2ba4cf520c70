"""The tree of errors.

    SmoLoRAError
    ├── ConfigError        an unusable config value, key or flag
    ├── DatasetError       an unusable file, row or column
    ├── PluginError        a failure to discover, load, select or run a plugin
    ├── ModelLoadError     a base model, tokenizer or adapter that cannot be loaded or adapted
    ├── TrainingError      a failed run: nothing to train, non-finite numbers, out of memory
    └── CheckpointError    a failure to write, verify or read a checkpoint

An error consists of problems, and each problem has a place, a description and a hint. The command line prints the problems
and exits with 2 if the user's input is at fault, or with 1 if a run failed (`SmoLoRAError.exit_code`).
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

import attrs


@attrs.frozen
class Problem:
    """One problem: what is wrong, where, and what to do about it.

    Example:
        >>> str(Problem("unknown key 'max_lenght' in data", where="run.yaml:4", hint="did you mean 'max_seq_length'?"))
        "run.yaml:4 unknown key 'max_lenght' in data; did you mean 'max_seq_length'?"
    """

    what: str
    where: str = attrs.field(default="", kw_only=True)
    hint: str = attrs.field(default="", kw_only=True)

    def __str__(self) -> str:
        line = f"{self.where} {self.what}" if self.where else self.what
        return f"{line}; {self.hint}" if self.hint else line


class SmoLoRAError(Exception):
    """Base class of the errors that SmoLoRA raises.

    Args:
        what: the problem, as one clause without a full stop.
        where: the file, `file:line`, flag or component at fault.
        hint: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where=where, hint=hint),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """Make one error that reports several problems, one per line."""
        found = tuple(problems)
        error = cls(found[0].what, where=found[0].where, hint=found[0].hint)
        error.problems = found
        error.args = ("\n".join(map(str, found)),)
        return error


class ConfigError(SmoLoRAError):
    """A config value, key or flag is unusable."""


class DatasetError(SmoLoRAError):
    """A data file, row or column is unusable."""


class PluginError(SmoLoRAError):
    """A plugin cannot be discovered, loaded, selected or run."""


class ModelLoadError(SmoLoRAError):
    """A base model, tokenizer or adapter cannot be loaded or adapted."""


class TrainingError(SmoLoRAError):
    """A run cannot start or continue."""

    exit_code = 1


class CheckpointError(SmoLoRAError):
    """A checkpoint cannot be written, verified or read."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to a misspelt one, as `did you mean 'q_proj'?`; empty if none is close."""
    near = get_close_matches(name, sorted(set(known)), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to a misspelt one, or list all of them, as `known: a, b, c`, if none is close."""
    names = sorted(set(known))
    return nearest(name, names) or (f"known: {', '.join(names)}" if names else "")


def first_line(error: BaseException) -> str:
    """Return an error's first line, with the second if the first ends with a colon; the type of an error without a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
