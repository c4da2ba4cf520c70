"""Turn the rows of one split into token sequences on disk, with a ledger that accounts for each row.

    read -> preprocessors -> example -> tokens and labels -> rows.arrow

Rows flow in batches, so memory does not grow with the data. Encoding, and the steps that see one row at a time, may run in
several processes; steps that remember earlier rows, or need all of them, run in this process before that.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import attrs

from smolora_core.components import TaskImplementation
from smolora_core.config import DataConfig
from smolora_core.data.cache import read_entry, write_entry
from smolora_core.data.chat.templates import choose_template
from smolora_core.data.encode import EncodedBatch, Maker, Rules, read_rows, run_steps
from smolora_core.data.formats import Shape, peek_shape
from smolora_core.data.ledger import Ledger
from smolora_core.data.preprocess import Context, Step
from smolora_core.data.sources.located import Located
from smolora_core.data.splits import Reader
from smolora_core.data.workers import in_order
from smolora_core.errors import DatasetError

_BATCH_ROWS = 1000
_BATCH_CHARACTERS = 1 << 22
_PEEKED = 20
_SAMPLED = 64
_REASONS = 3


@attrs.frozen(kw_only=True)
class Recipe:
    """How to turn the rows of a split into token sequences, in any number of passes.

    Attributes:
        config: the config's data section.
        make_steps: makes fresh preprocessors for one pass, in the user's order; a step may remember rows.
        task: the task implementation, which encodes examples.
        formats: the shapes that the task accepts.
        tokenizer: the base model's tokenizer.
        extra: the columns that the loss needs.
        seed: the run's seed, for preprocessors.
        vocab_size: the size of the model's vocabulary; None if unknown.
        key: the config key of the split, for errors.
    """

    config: DataConfig
    make_steps: Callable[[], tuple[Step, ...]] = tuple
    task: TaskImplementation
    formats: tuple[str, ...]
    tokenizer: Any
    extra: tuple[str, ...] = ()
    seed: int = 42
    vocab_size: int | None = None
    key: str = "data.train"

    @property
    def rules(self) -> Rules:
        """The rules that apply to every row."""
        context = Context(self.tokenizer, self.config.max_seq_length, self.seed, self.config.text_field)
        return Rules(context, drops_bad_rows=self.config.on_bad_row == "drop", vocab_size=self.vocab_size)


@attrs.frozen
class PreparedRows:
    """The token sequences of one split.

    Attributes:
        dataset: the sequences: `input_ids`, `labels` and the extra columns.
        shape: the name of the rows' shape.
        columns: the columns that were read.
        ledger: the account of every row.
        digests: the digest of each example, in order.
        prompts: for the first sequences, by index: their unsupervised texts.
        cached: whether they come from the cache.
    """

    dataset: Any
    shape: str
    columns: tuple[str, ...]
    ledger: Ledger
    digests: Sequence[int]
    prompts: Mapping[int, Sequence[str]]
    cached: bool = False
    _folder: Any = attrs.field(default=None, repr=False)

    @classmethod
    def of(cls, dataset: Any, account: Mapping[str, Any], ledger: Ledger, digests: Sequence[int], **more: Any) -> Self:
        """Make prepared rows from the account of `EncodedBatches`."""
        prompts = {int(index): texts for index, texts in account["prompts"].items()}
        return cls(dataset, account["shape"], tuple(account["columns"]), ledger, digests, prompts, **more)

    def sample(self, count: int) -> Iterator[Mapping[str, Any]]:
        """Yield a sample of about `count` sequences: the first ones, and others spread over the rest."""
        if not hasattr(self.dataset, "__len__"):
            return islice(self.dataset.in_order(), count)
        first, stride = range(min(_SAMPLED, len(self.dataset))), max(1, len(self.dataset) // count)
        return (self.dataset[index] for index in chain(first, range(len(first), len(self.dataset), stride)))


def prepare(
    read: Reader,
    recipe: Recipe,
    *,
    place: Path | None = None,
    processes: int = 1,
    progress: Callable[[int], object] = lambda rows: None,
) -> PreparedRows:
    """Turn the rows of one split into token sequences, at least one token of which is supervised.

    Args:
        read: reads the rows.
        recipe: how to prepare them.
        place: the cache entry to use; without it, the result lives in a temporary folder.
        processes: the number of worker processes; 1 works in this process.
        progress: called now and then with the number of rows read.

    Raises:
        DatasetError: a row cannot be used and `on_bad_row` is `error`; no row is left; no token is supervised; more rows are
            unusable than `max_row_loss` allows; a token is not in the vocabulary; the disk is full.
    """
    folder = None
    if place is None:
        folder = TemporaryDirectory(prefix="smolora-")
        place = Path(folder.name) / "rows"
    entry = read_entry(place)
    cached = entry is not None
    if entry is None:
        parts = EncodedBatches(read, recipe, processes=processes, progress=progress)
        entry = write_entry(place, parts, parts.account)
    ledger = Ledger.from_dict(entry.account["ledger"])
    check_loss(ledger, recipe)
    return PreparedRows.of(entry.dataset, entry.account, ledger, entry.digests, cached=cached, folder=folder)


class EncodedBatches:
    """The parts of a split, prepared one by one; the shape is known after the first, and the ledger grows with each."""

    def __init__(
        self,
        read: Reader,
        recipe: Recipe,
        ledger: Ledger | None = None,
        *,
        processes: int = 1,
        progress: Callable[[int], object] = lambda rows: None,
    ) -> None:
        """Take the arguments of `prepare`, and the ledger to fill; nothing is read yet."""
        self._read, self._recipe, self._processes, self._progress = read, recipe, processes, progress
        self.steps = recipe.make_steps()
        self.ledger = Ledger() if ledger is None else ledger
        self.shape: Shape | None = None
        self._columns: tuple[str, ...] = ()
        self._prompts: Mapping[int, Sequence[str]] = {}

    def __iter__(self) -> Iterator[EncodedBatch]:
        """Prepare the rows; errors as for `prepare`, except that `max_row_loss` is not checked."""
        for part in self._parts():
            self.ledger.add(part.ledger)
            self._progress(self.ledger.read)
            yield part
        if not self.ledger.supervised:
            raise DatasetError(f"0 trainable tokens in {self.ledger.read} rows", where=self._where, hint=_reasons(self.ledger))

    def account(self) -> Mapping[str, Any]:
        """Convert the shape, the columns, the prompts and the ledger to plain values."""
        assert self.shape is not None
        about = {"shape": self.shape.name, "columns": self._columns, "prompts": self._prompts}
        return {**about, "ledger": self.ledger.as_dict()}

    @property
    def _where(self) -> str:
        return "" if self._recipe.key == "data.train" else f"{self._recipe.key}:"

    def _parts(self) -> Iterator[EncodedBatch]:
        recipe, rules = self._recipe, self._recipe.rules
        sequential, parallel = _split_steps(self.steps)
        batches = _batches(run_steps(read_rows(self._read, rules, self.ledger), sequential, rules, self.ledger))
        for batch in batches:
            ledger = Ledger()
            rows = run_steps(iter(batch), parallel, rules, ledger)
            # Where a bad row is an error, the first one must be reported before any that follow.
            first = list(islice(rows, _PEEKED if rules.drops_bad_rows else 1))
            if first:
                self.shape = peek_shape(recipe.config, first, recipe.extra, recipe.formats)
                if self.shape.name == "messages" and recipe.tokenizer.chat_template:
                    # Otherwise a template that always fails would be reported for every row.
                    choose_template(recipe.tokenizer, "auto", self._where)
                make = Maker(parallel, self.shape, recipe.task, rules)
                self._columns = (*self.shape.columns, *(each for each in self.shape.optional if each in first[0].row))
                part = make.encode(chain(first, rows), ledger, sampled=_SAMPLED)
                self._prompts = part.prompts
                yield part
                yield from in_order(make, batches, self._processes)
                return
            self.ledger.add(ledger)
        raise DatasetError(f"no rows left of {self.ledger.read}", where=self._where, hint=_reasons(self.ledger))


def check_loss(ledger: Ledger, recipe: Recipe) -> None:
    """Raise a DatasetError, with the reasons, if more rows were unusable than `max_row_loss` allows."""
    allowed, rows = recipe.config.max_row_loss, ledger.read + ledger.added
    if allowed is not None and ledger.lost > allowed * rows:
        share = f"{ledger.lost} of {rows} rows ({ledger.lost / rows:.1%}) could not be used"
        raise DatasetError(f"{share}, but data.max_row_loss is {allowed}", where=f"{recipe.key}:", hint=_reasons(ledger))


def _reasons(ledger: Ledger) -> str:
    return "; ".join(f"{count} rows: {reason}" for reason, count in ledger.reasons.most_common(_REASONS))


def _split_steps(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Split the steps after the last one that needs all rows in one process; those that follow may run in parallel."""
    ordered = [index for index, step in enumerate(steps, start=1) if step.registered.component.ordered or step.on_dataset]
    cut = max(ordered, default=0)
    return tuple(steps[:cut]), tuple(steps[cut:])


def _batches(rows: Iterable[Located]) -> Iterator[list[Located]]:
    batch: list[Located] = []
    characters = 0
    try:
        for located in rows:
            batch.append(located)
            characters += sum(len(value if type(value) is str else repr(value)) for value in located.row.values())
            if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    except Exception:
        # Problems of the rows before this one must be reported first.
        if batch:
            yield batch
        raise
    if batch:
        yield batch
