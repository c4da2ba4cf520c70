"""Preprocessors at work: rows go through functions of one row and functions of a whole dataset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from smolora_core.components import Drop, Preprocessor
from smolora_core.data.ledger import Ledger
from smolora_core.data.sources.located import Located, OnBad, text_problem
from smolora_core.errors import DatasetError
from smolora_core.plugins import Registered
from smolora_core.plugins.loading import noting

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset

Rows = Iterator[Located]


@attrs.frozen
class Context:
    """What a `Preprocessor` is told besides the dataset, or the row if its record says `context=True`.

    Attributes:
        tokenizer: of the base model, to measure rows with.
        max_seq_length: tokens in a sequence at most.
        seed: of the run, for whatever is random.
        text_field: the column of a text row.

    Example:
        >>> def shuffled(dataset, context):
        ...     return dataset.shuffle(seed=context.seed)
    """

    tokenizer: Any
    max_seq_length: int
    seed: int
    text_field: str = "text"


@attrs.frozen
class Step:
    """A preprocessor ready to run: its record and origin, and the function with its options bound."""

    registered: Registered[Preprocessor]
    run: Callable[..., Any]
    number: int = 1
    """Of the steps of one name, which this is."""

    @property
    def name(self) -> str:
        """What the ledger calls it: `chunk-words`, and the second one `chunk-words (2)`."""
        name = self.registered.component.name
        return name if self.number == 1 else f"{name} ({self.number})"

    @property
    def whole(self) -> bool:
        """Whether it works on a whole dataset."""
        return self.registered.component.scope == "dataset"

    @property
    def title(self) -> str:
        """What messages call it: `preprocessor 'half' (my-package 1.0)`."""
        return f"preprocessor {self.name!r} ({self.registered.origin})"


def through(rows: Rows, step: Step, context: Context, ledger: Ledger, on_bad: OnBad) -> Rows:
    """Put rows through a step, one at a time or, where it works on whole datasets, together.

    Args:
        rows: what goes in.
        step: the step.
        context: what a step on whole datasets is told.
        ledger: accounts for rows that the step drops and adds.
        on_bad: is told of rows that a step cannot use, or no dataset can hold.

    Raises:
        DatasetError: the step returned something else than rows, or the rows do not make a dataset.
    """
    if step.whole:
        return _together(rows, step, context, ledger, on_bad)
    return _row_by_row(rows, step, (context,) if step.registered.component.context else (), ledger, on_bad)


def _row_by_row(rows: Rows, step: Step, told: tuple[Context, ...], ledger: Ledger, on_bad: OnBad) -> Rows:
    for located in rows:
        ledger.passed(step.name, 1, 0)
        try:
            with noting(step.registered.origin, f"preprocessing {located.where}"):
                result = _called(step, dict(located.row), *told)
        except DatasetError as error:
            problem = error.problems[0]
            on_bad(attrs.evolve(problem, what=f"{problem.what} in step {step.name!r}", where=problem.where or located.where))
            continue
        if isinstance(result, dict):
            ledger.passed(step.name, 0, 1)
            yield Located(result, located.where)
        elif result is None:
            ledger.drop(step.name, "dropped", located.where)
        elif isinstance(result, Drop):
            ledger.drop(step.name, result.reason, located.where, result.size)
        elif isinstance(result, list) and all(isinstance(row, dict) for row in result):
            if not result:
                ledger.drop(step.name, "made no rows", located.where)
            ledger.added += max(0, len(result) - 1)
            ledger.passed(step.name, 0, len(result))
            yield from (Located(row, located.where) for row in result)
        else:
            raise DatasetError(
                f"{step.title} returned {type(result).__name__}",
                where=located.where,
                hint="return the row, None, Drop('reason') or a list of rows",
            )


def _called(step: Step, *arguments: Any) -> Any:
    try:
        return step.run(*arguments)
    except StopIteration as error:
        # It would look like the end of the rows.
        raise RuntimeError("StopIteration") from error


def _together(rows: Rows, step: Step, context: Context, ledger: Ledger, on_bad: OnBad) -> Rows:
    from datasets.arrow_dataset import Dataset

    before = []
    for located in rows:
        ledger.passed(step.name, 1, 0)
        if _holds_text(located, on_bad):
            before.append(located.row)
    if not before:
        return
    try:
        dataset = dataset_of(before)
    except DatasetError as error:
        raise DatasetError(f"{step.title} works on whole datasets, and {error}") from error
    with noting(step.registered.origin, f"preprocessing {len(before)} rows"):
        after = step.run(dataset, context)
    if not isinstance(after, Dataset):
        raise DatasetError(f"{step.title} returned {type(after).__name__}, not a Dataset")
    ledger.passed(step.name, 0, len(after))
    ledger.added += max(0, len(after) - len(before))
    for _ in range(len(before) - len(after)):
        ledger.drop(step.name, "left out", step.name)
    for index, row in enumerate(after, start=1):
        yield Located(row, f"row {index} after {step.name}")


def _holds_text(located: Located, on_bad: OnBad) -> bool:
    for column, value in located.row.items():
        if isinstance(value, str) and (problem := text_problem(column, value, located.where)):
            on_bad(problem)
            return False
    return True


def dataset_of(rows: Sequence[Mapping[str, Any]]) -> "Dataset":
    """Make a dataset of rows, with every column that any of them has.

    Raises:
        DatasetError: naming the column that no dataset can hold.
    """
    from datasets.arrow_dataset import Dataset

    # Dataset.from_list has the columns of the first row only.
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    try:
        return Dataset.from_dict(columns)
    except _misfits() as error:
        raise DatasetError(_misfit(columns)) from error


def _misfit(columns: Mapping[str, Sequence[Any]]) -> str:
    """Say which column no dataset can hold."""
    from datasets.arrow_dataset import Dataset

    for name, values in columns.items():
        try:
            Dataset.from_dict({name: list(values)})
        except _misfits() as error:
            if len({type(value) for value in values if value is not None}) > 1:
                return f"column {name!r} holds values of different types"
            return f"column {name!r} holds what no dataset can ({str(error).partition(chr(10))[0]})"
    return "its columns make no dataset"


def _misfits() -> tuple[type[Exception], ...]:
    from pyarrow.lib import ArrowException

    return ArrowException, OverflowError, TypeError, ValueError
