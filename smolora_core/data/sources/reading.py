"""The config's settings for reading files."""

import codecs
from typing import Literal, Self

import attrs

from smolora_core.config import DataConfig
from smolora_core.data.sources.files import FileKind
from smolora_core.errors import DatasetError, did_you_mean

# The ones to suggest, of more than a hundred that Python has.
_USUAL = ("utf-8", "utf-16", "latin-1", "windows-1251", "windows-1252", "shift_jis", "gb18030", "big5", "euc-kr", "koi8-r")
_NOT_FOR_FILES = {"idna", "punycode", "raw-unicode-escape", "unicode-escape"}


def _unescaped(delimiter: str) -> str:
    # In YAML, '\t' in single quotes or in none is two characters.
    return "\t" if delimiter == "\\t" else delimiter


def _is_text_encoding(encoding: str) -> bool:
    try:
        # Fails for codecs between bytes and bytes.
        "".encode(encoding)
        return codecs.lookup(encoding).name not in _NOT_FOR_FILES
    except (LookupError, ValueError):
        return False


@attrs.frozen
class Reading:
    r"""How to read files; `auto` is detected from their content.

    Attributes:
        encoding: the name of a Python codec.
        delimiter: the character between the cells of a CSV file; `\t` is a tab.
        header: whether a CSV file starts with a header row.
        streaming: whether a hub dataset is streamed over the network.
        kind: the kind of all files, instead of what their extensions imply.
        fields: column names to look for; a record that contains one is a header row.

    Example:
        >>> Reading(encoding="latin-1", delimiter="\\t").delimiter
        '\t'
    """

    encoding: str = "auto"
    delimiter: str = attrs.field(default="auto", converter=_unescaped)
    header: Literal["auto"] | bool = "auto"
    streaming: bool = False
    kind: FileKind | None = None
    fields: frozenset[str] = frozenset({"text", "prompt", "completion", "instruction", "input", "output", "messages"})

    @classmethod
    def of(cls, config: DataConfig) -> Self:
        """Take the settings from a config."""
        wanted = [getattr(config, name) for name in attrs.fields_dict(DataConfig) if name.endswith("_field")]
        fields = {each for name in wanted for each in ([name] if isinstance(name, str) else name or ())}
        return cls(config.encoding, config.delimiter, config.header, config.streaming, fields=frozenset(fields))

    def check(self) -> None:
        """Raise a DatasetError for an unusable encoding or delimiter."""
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0'):
            hint = "set it to one character, like ',' or ';' or '\\t'"
            raise DatasetError(f"data.delimiter {self.delimiter!r} is not a single-character delimiter", hint=hint)
        if self.encoding != "auto" and not _is_text_encoding(self.encoding):
            what = f"data.encoding {self.encoding!r} is not a text encoding"
            raise DatasetError(what, hint=did_you_mean(self.encoding.lower(), _USUAL))
