"""Rows through preprocessors from Python: what a run does before it makes tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from smolora_core.components import Preprocessor
from smolora_core.config import Resolved, resolve
from smolora_core.config.document import Document
from smolora_core.data.encode import Rules, read_rows, run_steps
from smolora_core.data.ledger import Ledger
from smolora_core.data.preprocess import Context, Step, dataset_of
from smolora_core.data.sources import Source, open_source
from smolora_core.data.sources.files import KINDS, FileKind
from smolora_core.data.sources.located import Located
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import ConfigError, DatasetError, Problem, did_you_mean
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_core.plugins.inline import FROM_PYTHON, Handed
from smolora_core.plugins.selection import choose_preprocessors

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset


class DatasetHandler:
    """A chain of preprocessors for rows of text.

    Attributes:
        ledger: what became of the rows of the latest dataset.

    Example:
        >>> handler = DatasetHandler("review").add_preprocessor("strip").add_preprocessor({"name": "chunk-words", "size": 2})
        >>> list(handler.process_dataset([{"review": " a fine film "}])["review"])
        ['a fine ', 'film']
    """

    def __init__(
        self,
        text_field: str = "text",
        *,
        on_bad_row: Literal["error", "drop"] = "error",
        tokenizer: Any = None,
        plugins: Sequence[object] = (),
    ) -> None:
        """Make an empty chain.

        Args:
            text_field: the column that must hold text in the end.
            on_bad_row: whether a row that cannot be used is an error, or dropped and counted.
            tokenizer: for preprocessors that count tokens.
            plugins: modules or objects with hook implementations.
        """
        self._text_field, self._on_bad_row, self._tokenizer = text_field, on_bad_row, tokenizer
        self._handed = Handed()
        self._plugins = (*plugins, self._handed)
        self._chain: list[Any] = []
        self.ledger = Ledger()

    def add_preprocessor(self, preprocessor: str | Mapping[str, Any] | Preprocessor | Callable[..., Any]) -> Self:
        """Append a step: a function `(row) -> row | None | Drop | list`, a record, a name, or a name with options."""
        self._chain.append(self._handed.name(preprocessor, Preprocessor))
        return self

    def process_dataset(self, dataset: Any) -> "Dataset":
        """Put the rows of a dataset, a list of dicts, or whatever `data.train` may name, through the chain.

        Raises:
            DatasetError: a row cannot be used and `on_bad_row` is `error`, or no row is left.
            PluginError: a name or an option is unknown.
        """
        return self.process_source(open_source(dataset))

    def process_source(self, source: Source) -> "Dataset":
        """Put the rows of a source through the chain; errors as for `process_dataset`."""
        config = self._resolved().config
        context = Context(self._tokenizer, config.data.max_seq_length, config.seed, self._text_field)
        rules, self.ledger = Rules(context, drops=self._on_bad_row == "drop"), Ledger()
        rows = run_steps(read_rows(source.rows, rules, self.ledger), self._steps(), rules, self.ledger)
        kept = [located.row for located in rows if self._has_text(located, rules)]
        self.ledger.kept = self.ledger.sequences = len(kept)
        if not kept:
            raise DatasetError(f"no row is left of {self.ledger.read}", where=source.name)
        return dataset_of(kept)

    def _resolved(self) -> Resolved:
        data = {"train": "rows in memory", "preprocessors": self._chain}
        return resolve(Document({"model": "none", "data": data}, {"": FROM_PYTHON}))

    def _steps(self) -> list[Step]:
        registry = PluginManager.create(PluginChoice(objects=self._plugins)).registry
        return [Step(each.registered, each.build()) for each in choose_preprocessors(self._resolved(), registry)]

    def _has_text(self, located: Located, rules: Rules) -> bool:
        value = located.row.get(self._text_field)
        if isinstance(value, str):
            return True
        found = f"is {type(value).__name__}" if self._text_field in located.row else "is missing"
        problem = Problem(f"column {self._text_field!r} must be text, {found}", where=located.where)
        rules.reject(self.ledger, "read", problem)
        return False


def prepare_dataset(
    source: Any, text_field: str = "text", chunk_size: int | None = None, file_type: FileKind | None = None
) -> "Dataset":
    """Read rows of text, and cut long ones.

    Args:
        source: file, glob, list of files, folder, hub id, dataset or list of dicts.
        text_field: the column of the text.
        chunk_size: words in a row at most; longer texts become several rows.
        file_type: of what kind the files are, where their names do not say.

    Raises:
        ConfigError: the file type is unknown.
        DatasetError: the source cannot be read, or a row has no text.

    Example:
        >>> len(prepare_dataset([{"text": "one two three"}], chunk_size=2))
        2
    """
    kinds = sorted(set(KINDS.values()))
    if file_type is not None and file_type not in kinds:
        raise ConfigError(f"no file type is named {file_type!r}", hint=did_you_mean(file_type, kinds))
    handler = DatasetHandler(text_field)
    if chunk_size is not None:
        handler.add_preprocessor({"name": "chunk-words", "size": chunk_size, "field": text_field})
    return handler.process_source(open_source(source, reading=Reading(kind=file_type)))
