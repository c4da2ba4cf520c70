"""What can go wrong, as one tree.

    SmoLoRAError
    ├── ConfigError        a value, key or flag the user gave
    ├── DatasetError       a file, row or column
    ├── PluginError        discovering, loading, choosing or running a plugin
    ├── ModelLoadError     a base model, tokenizer or adapter that cannot be loaded or adapted
    ├── TrainingError      the run itself: nothing to train, non-finite numbers, no memory left
    └── CheckpointError    writing, verifying or reading a checkpoint

Every error is made of problems, and a problem says where, what, and what to do. A command line prints the problems and exits
with 2 when the user's input was at fault (`SmoLoRAError.exit_code`), with 1 when a run failed.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

import attrs


@attrs.frozen
class Problem:
    """One thing that is wrong: where it stands, what it is, and what to do about it.

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
    """Base of every error SmoLoRA raises on purpose.

    Args:
        what: what happened, as one clause without a full stop.
        where: the file, `file:line`, flag or component it happened in.
        hint: what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(what, where=where, hint=hint),)
        super().__init__(str(self.problems[0]))

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """Make one error that reports several problems together, one a line."""
        found = tuple(problems)
        error = cls(found[0].what, where=found[0].where, hint=found[0].hint)
        error.problems = found
        error.args = ("\n".join(map(str, found)),)
        return error


class ConfigError(SmoLoRAError):
    """A config value, key or flag cannot be used."""


class DatasetError(SmoLoRAError):
    """A data file, row or column cannot be used."""


class PluginError(SmoLoRAError):
    """A plugin cannot be found, loaded, chosen or trusted."""


class ModelLoadError(SmoLoRAError):
    """A base model, tokenizer or adapter cannot be loaded or adapted."""


class TrainingError(SmoLoRAError):
    """A run cannot start or go on."""

    exit_code = 1


class CheckpointError(SmoLoRAError):
    """A checkpoint cannot be written, verified or read."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str:
    """Say the known name that a misspelt one was meant to be: `did you mean 'q_proj'?`, or nothing when none is near."""
    near = get_close_matches(name, sorted(set(known)), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say the nearest known name to a misspelt one, or list them all (`known: a, b, c`) when none is near."""
    names = sorted(set(known))
    return nearest(name, names) or (f"known: {', '.join(names)}" if names else "")


def first_line(error: BaseException) -> str:
    """Give an error's first line, and the second where the first only announces it; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
