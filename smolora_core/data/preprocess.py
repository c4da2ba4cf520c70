"""Run preprocessors: functions of one row, and functions of a whole dataset."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from smolora_core.components import Drop, Preprocessor
from smolora_core.data.ledger import Ledger
from smolora_core.data.sources.located import Located, OnBad, text_problem
from smolora_core.errors import DatasetError, first_line
from smolora_core.plugins import Registered
from smolora_core.plugins.loading import attributing_errors

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset

Rows = Iterator[Located]


@attrs.frozen
class Context:
    """The second argument of a preprocessor with scope `dataset`, or of one with scope `row` and `context=True`.

    Attributes:
        tokenizer: the base model's tokenizer.
        max_seq_length: the tokens in a sequence at most.
        seed: the run's seed.
        text_field: the column that contains the text.

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
    """A preprocessor ready to run: its record and origin, and the function with its options bound.

    `number` counts the steps of the same name.
    """

    registered: Registered[Preprocessor]
    run: Callable[..., Any]
    number: int = 1

    @property
    def name(self) -> str:
        """The name in the ledger: `chunk-words`, and `chunk-words (2)` for the second one."""
        name = self.registered.component.name
        return name if self.number == 1 else f"{name} ({self.number})"

    @property
    def on_dataset(self) -> bool:
        """Whether the step takes all rows at once, as a dataset."""
        return self.registered.component.scope == "dataset"

    @property
    def title(self) -> str:
        """The name in messages: `preprocessor 'half' (my-package 1.0)`."""
        return f"preprocessor {self.name!r} ({self.registered.origin})"


def run_step(rows: Rows, step: Step, context: Context, ledger: Ledger, on_bad: OnBad) -> Rows:
    """Run a step over rows, one at a time or all at once, depending on its scope.

    Args:
        rows: the rows to preprocess.
        step: the step to run.
        context: the context for steps that take one.
        ledger: counts the rows that the step drops and adds.
        on_bad: called for rows that the step rejects, or that a dataset cannot store.

    Raises:
        DatasetError: the step returned something other than rows, or a dataset cannot store its rows.
    """
    if step.on_dataset:
        return _all_at_once(rows, step, context, ledger, on_bad)
    return _row_by_row(rows, step, (context,) if step.registered.component.context else (), ledger, on_bad)


def _row_by_row(rows: Rows, step: Step, context: tuple[Context, ...], ledger: Ledger, on_bad: OnBad) -> Rows:
    for located in rows:
        ledger.passed(step.name, 1, 0)
        try:
            with attributing_errors(step.registered.origin, f"preprocessing {located.where}"):
                result = _call(step, dict(located.row), *context)
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
                ledger.drop(step.name, "returned no rows", located.where)
            ledger.added += max(0, len(result) - 1)
            ledger.passed(step.name, 0, len(result))
            yield from (Located(row, located.where) for row in result)
        else:
            hint = "return the row, None, Drop('reason') or a list of rows"
            raise DatasetError(f"{step.title} returned {type(result).__name__}", where=located.where, hint=hint)


def _call(step: Step, *arguments: Any) -> Any:
    try:
        return step.run(*arguments)
    except StopIteration as error:
        # It would look like the end of the rows.
        raise RuntimeError("StopIteration") from error


def _all_at_once(rows: Rows, step: Step, context: Context, ledger: Ledger, on_bad: OnBad) -> Rows:
    from datasets.arrow_dataset import Dataset

    before = []
    for located in rows:
        ledger.passed(step.name, 1, 0)
        if _has_valid_text(located, on_bad):
            before.append(located.row)
    if not before:
        return
    try:
        dataset = dataset_of(before)
    except DatasetError as error:
        raise DatasetError(f"{step.title} needs the rows as a dataset, but {error}") from error
    with attributing_errors(step.registered.origin, f"preprocessing {len(before)} rows"):
        after = step.run(dataset, context)
    if not isinstance(after, Dataset):
        raise DatasetError(f"{step.title} returned {type(after).__name__}, not a Dataset")
    ledger.passed(step.name, 0, len(after))
    ledger.added += max(0, len(after) - len(before))
    for _ in range(len(before) - len(after)):
        ledger.drop(step.name, "removed", step.name)
    for index, row in enumerate(after, start=1):
        yield Located(row, f"row {index} after {step.name}")


def _has_valid_text(located: Located, on_bad: OnBad) -> bool:
    for column, value in located.row.items():
        if isinstance(value, str) and (problem := text_problem(column, value, located.where)):
            on_bad(problem)
            return False
    return True


def dataset_of(rows: Sequence[Mapping[str, Any]]) -> "Dataset":
    """Make a dataset of rows, with all columns of any row; raise a DatasetError for a column that it cannot store."""
    from datasets.arrow_dataset import Dataset
    from pyarrow.lib import ArrowException

    # Dataset.from_list takes only the columns of the first row.
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    errors = (ArrowException, OverflowError, TypeError, ValueError)
    try:
        return Dataset.from_dict(columns)
    except errors as failure:
        for name, values in columns.items():
            try:
                Dataset.from_dict({name: values})
            except errors as error:
                mixed = len({type(value) for value in values if value is not None}) > 1
                what = "has values of different types" if mixed else f"cannot be stored in a dataset ({first_line(error)})"
                raise DatasetError(f"column {name!r} {what}") from error
        raise DatasetError("its columns cannot be stored in a dataset") from failure
