"""Rows of one side become token sequences on disk, and a ledger accounts for each row.

    read -> preprocessors -> example -> tokens and labels -> rows.arrow

Rows flow in batches, so memory does not grow with the data. The steps that look at one row at a time, and the encoding, may
be shared among processes; what remembers earlier rows, or wants all of them at once, comes before that in one process.
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
from smolora_core.data.encode import Maker, Part, Rules, read_rows, run_steps
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
    """How the rows of a split become token sequences; one recipe serves every pass over them.

    Attributes:
        config: fields, lengths and what to do with bad rows.
        make_steps: makes the preprocessors of one pass, in the user's order; a step may remember rows.
        task: encodes examples.
        formats: the shapes of rows that it takes.
        tokenizer: of the base model.
        extra: columns that the loss needs.
        seed: of the run, for preprocessors.
        vocab_size: of the model, whose token ids are below it; None where it is not known.
        side: the config key the rows come by, for errors.
    """

    config: DataConfig
    make_steps: Callable[[], tuple[Step, ...]] = tuple
    task: TaskImplementation
    formats: tuple[str, ...]
    tokenizer: Any
    extra: tuple[str, ...] = ()
    seed: int = 42
    vocab_size: int | None = None
    side: str = "data.train"

    @property
    def rules(self) -> Rules:
        """What holds for every row."""
        context = Context(self.tokenizer, self.config.max_seq_length, self.seed, self.config.text_field)
        return Rules(context, drops=self.config.on_bad_row == "drop", vocab_size=self.vocab_size)


@attrs.frozen
class PreparedRows:
    """Token sequences of one side, what shape the rows had, and what became of each row.

    Attributes:
        dataset: `input_ids`, `labels` and the extra columns.
        shape: its name.
        columns: that were read.
        digests: of each example, in order.
        prompts: of the first sequences, by their number: the texts in them that are not trained.
        cached: whether an earlier run prepared them.
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
        """Make one of the account that `Parts` gave."""
        prompts = {int(number): texts for number, texts in account["prompts"].items()}
        return cls(dataset, account["shape"], tuple(account["columns"]), ledger, digests, prompts, **more)

    def some(self, count: int) -> Iterator[Mapping[str, Any]]:
        """Yield a number of sequences: the first ones, and others from all over the rest."""
        if not hasattr(self.dataset, "__len__"):
            return islice(self.dataset.in_order(), count)
        first, every = range(min(_SAMPLED, len(self.dataset))), max(1, len(self.dataset) // count)
        return (self.dataset[index] for index in chain(first, range(len(first), len(self.dataset), every)))


def prepare(
    read: Reader,
    recipe: Recipe,
    *,
    place: Path | None = None,
    processes: int = 1,
    progress: Callable[[int], object] = lambda rows: None,
) -> PreparedRows:
    """Turn the rows of one side into token sequences.

    Args:
        read: reads them.
        recipe: what becomes of them.
        place: where the result is kept, and found again; without it, it lives as long as what is returned.
        processes: how many share the work.
        progress: told how many rows have been read, now and then.

    Returns:
        At least one supervised token.

    Raises:
        DatasetError: a row cannot be used and `on_bad_row` is `error`; nothing is left; nothing would be trained; more rows
            were dropped than `max_row_loss` allows; a token is not in the vocabulary; the disk is full.
    """
    folder = None
    if place is None:
        folder = TemporaryDirectory(prefix="smolora-")
        place = Path(folder.name) / "rows"
    kept = read_entry(place)
    cached = kept is not None
    if kept is None:
        parts = Parts(read, recipe, processes=processes, progress=progress)
        kept = write_entry(place, parts, parts.account)
    ledger = Ledger.from_dict(kept.account["ledger"])
    check_loss(ledger, recipe)
    return PreparedRows.of(kept.dataset, kept.account, ledger, kept.digests, cached=cached, folder=folder)


class Parts:
    """The parts of a side, one after another; the shape of the rows and the ledger grow with them."""

    def __init__(
        self,
        read: Reader,
        recipe: Recipe,
        ledger: Ledger | None = None,
        *,
        processes: int = 1,
        progress: Callable[[int], object] = lambda rows: None,
    ) -> None:
        """Take what `prepare` takes, and the account to keep; nothing is read yet."""
        self._read, self._recipe, self._processes, self._progress = read, recipe, processes, progress
        self.steps = recipe.make_steps()
        self.ledger = Ledger() if ledger is None else ledger
        self.shape: Shape | None = None
        self._columns: tuple[str, ...] = ()
        self._prompts: Mapping[int, Sequence[str]] = {}

    def __iter__(self) -> Iterator[Part]:
        """Prepare the rows.

        Raises:
            DatasetError: as `prepare`, but for `max_row_loss`.
        """
        for part in self._parts():
            self.ledger.add(part.ledger)
            self._progress(self.ledger.read)
            yield part
        if not self.ledger.supervised:
            raise DatasetError(f"0 trainable tokens in {self.ledger.read} rows", where=self._where, hint=reasons(self.ledger))

    def account(self) -> Mapping[str, Any]:
        """Say what is kept beside the parts."""
        assert self.shape is not None
        about = {"shape": self.shape.name, "columns": self._columns, "prompts": self._prompts}
        return {**about, "ledger": self.ledger.as_dict()}

    @property
    def _where(self) -> str:
        return "" if self._recipe.side == "data.train" else f"{self._recipe.side}:"

    def _parts(self) -> Iterator[Part]:
        recipe, rules = self._recipe, self._recipe.rules
        alone, shared = _divided(self.steps)
        batches = _batches(run_steps(read_rows(self._read, rules, self.ledger), alone, rules, self.ledger))
        for batch in batches:
            ledger = Ledger()
            rows = run_steps(iter(batch), shared, rules, ledger)
            # Where a bad row is an error, nothing behind the first one may be reported before it.
            first = list(islice(rows, _PEEKED if rules.drops else 1))
            if first:
                self.shape = peek_shape(recipe.config, first, recipe.extra, recipe.formats)
                if self.shape.name == "messages" and recipe.tokenizer.chat_template:
                    # A template that fails would be said of every row.
                    choose_template(recipe.tokenizer, "auto", self._where)
                make = Maker(shared, self.shape, recipe.task, rules)
                self._columns = (*self.shape.columns, *(each for each in self.shape.optional if each in first[0].row))
                part = make.encode(chain(first, rows), ledger, sampled=_SAMPLED)
                self._prompts = part.prompts
                yield part
                yield from in_order(make, batches, self._processes)
                return
            self.ledger.add(ledger)
        raise DatasetError(f"no row is left of {self.ledger.read}", where=self._where, hint=reasons(self.ledger))


def check_loss(ledger: Ledger, recipe: Recipe) -> None:
    """Stop where more rows could not be used than the user allows.

    Raises:
        DatasetError: with the reasons.
    """
    allowed, rows = recipe.config.max_row_loss, ledger.read + ledger.added
    if allowed is not None and ledger.lost > allowed * rows:
        share = f"{ledger.lost} of {rows} rows could not be used, {ledger.lost / rows:.1%}"
        raise DatasetError(f"{share}, and data.max_row_loss is {allowed}", where=f"{recipe.side}:", hint=reasons(ledger))


def reasons(ledger: Ledger) -> str:
    """Say why most rows were dropped."""
    return "; ".join(f"{count} rows: {reason}" for reason, count in ledger.reasons.most_common(_REASONS))


def _divided(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Part the steps into those for one process, up to the last that needs it, and those that may be shared."""
    needs_one = [index for index, step in enumerate(steps, start=1) if _needs_one_process(step)]
    border = max(needs_one, default=0)
    return tuple(steps[:border]), tuple(steps[border:])


def _needs_one_process(step: Step) -> bool:
    return step.registered.component.ordered or step.whole


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
        # What is wrong with the rows before this one is to be heard first.
        if batch:
            yield batch
        raise
    if batch:
        yield batch
