"""Read and preprocess rows from Python, as a run does before it tokenizes them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from smolora_core.components import Preprocessor
from smolora_core.config import resolve
from smolora_core.config.document import Document
from smolora_core.data.encode import Rules, read_rows, run_steps
from smolora_core.data.ledger import Ledger
from smolora_core.data.preprocess import Context, Step, dataset_of
from smolora_core.data.sources import Source, open_source
from smolora_core.data.sources.files import FileKind
from smolora_core.data.sources.located import Located
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import DatasetError, Problem
from smolora_core.library.validation import validate_inputs
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_core.plugins.inline import FROM_PYTHON, InlineComponents
from smolora_core.plugins.selection import choose_preprocessors

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset


class DatasetHandler:
    """A chain of preprocessors for rows of text.

    Args:
        text_field: the column that must contain text once every step has run.
        on_bad_row: whether a bad row raises an error, or is dropped and counted.
        tokenizer: the tokenizer for preprocessors that count tokens.
        plugins: modules or objects with hook implementations.

    Attributes:
        ledger: row counts of the latest dataset: read, added, kept, and dropped by reason.

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
        self._text_field, self._on_bad_row, self._tokenizer = text_field, on_bad_row, tokenizer
        self._inline = InlineComponents()
        self._plugins = (*plugins, self._inline)
        self._chain: list[Any] = []
        self.ledger = Ledger()

    def add_preprocessor(self, preprocessor: str | Mapping[str, Any] | Preprocessor | Callable[..., Any]) -> Self:
        """Append a step: a name, `{"name": ..., option: ...}`, a record, or a function `(row) -> row | None | Drop | list`."""
        self._chain.append(self._inline.register(preprocessor, Preprocessor))
        return self

    def process_dataset(self, dataset: Any) -> "Dataset":
        """Run the rows of a dataset through the chain: a list of dicts, a `Dataset`, or anything that `data.train` accepts.

        Raises:
            DatasetError: a row is bad and `on_bad_row` is "error", or no rows are left.
            PluginError: a preprocessor or one of its options is unknown.
        """
        return self._process(open_source(dataset))

    def _process(self, source: Source) -> "Dataset":
        data = {"train": "rows in memory", "preprocessors": self._chain}
        resolved = resolve(Document({"model": "none", "data": data}, {"": FROM_PYTHON}))
        registry = PluginManager.create(PluginChoice(objects=self._plugins)).registry
        steps = [Step(each.registered, each.build()) for each in choose_preprocessors(resolved, registry)]
        context = Context(self._tokenizer, resolved.config.data.max_seq_length, resolved.config.seed, self._text_field)
        rules, self.ledger = Rules(context, drops_bad_rows=self._on_bad_row == "drop"), Ledger()
        rows = run_steps(read_rows(source.rows, rules, self.ledger), steps, rules, self.ledger)
        kept = [located.row for located in rows if self._has_text(located, rules)]
        self.ledger.kept = self.ledger.sequences = len(kept)
        if not kept:
            raise DatasetError(f"no rows left of {self.ledger.read}", where=source.name)
        return dataset_of(kept)

    def _has_text(self, located: Located, rules: Rules) -> bool:
        value = located.row.get(self._text_field)
        if not isinstance(value, str):
            found = f"must be text, got {type(value).__name__}" if self._text_field in located.row else "is missing"
            rules.drop_or_raise(self.ledger, "read", Problem(f"column {self._text_field!r} {found}", where=located.where))
        return isinstance(value, str)


@validate_inputs(file_type=FileKind | None)
def prepare_dataset(
    source: Any, text_field: str = "text", chunk_size: int | None = None, file_type: FileKind | None = None
) -> "Dataset":
    """Read rows of text, and split long texts into chunks.

    Args:
        source: a file, a glob, a list of files, a folder, a hub id, a dataset, or a list of dicts.
        text_field: the text column.
        chunk_size: the maximum number of words per row; longer texts become several rows.
        file_type: the format of files whose names do not reveal it.

    Raises:
        ConfigError: the file type is unknown.
        DatasetError: the source cannot be read, or a row has no text.

    Example:
        >>> len(prepare_dataset([{"text": "one two three"}], chunk_size=2))
        2
    """
    handler = DatasetHandler(text_field)
    if chunk_size is not None:
        handler.add_preprocessor({"name": "chunk-words", "size": chunk_size, "field": text_field})
    return handler._process(open_source(source, reading=Reading(kind=file_type)))
