"""What the user says about the form of files, and what is left to be seen from them."""

import codecs
from typing import Literal, Self

import attrs

from smolora_core.config import DataConfig
from smolora_core.data.sources.files import FileKind
from smolora_core.errors import DatasetError, did_you_mean

# Of more than a hundred that Python knows.
_USUAL = ("utf-8", "utf-16", "latin-1", "windows-1251", "windows-1252", "shift_jis", "gb18030", "big5", "euc-kr", "koi8-r")
_OF_NO_FILE = {"idna", "punycode", "raw-unicode-escape", "unicode-escape"}


def _character(text: str) -> str:
    # In YAML, '\t' in single quotes or in none is two characters.
    return "\t" if text == "\\t" else text


def _is_of_files(encoding: str) -> bool:
    try:
        # Some codecs make bytes of bytes, and others are for names of hosts; this knows only those of text.
        "".encode(encoding)
        return codecs.lookup(encoding).name not in _OF_NO_FILE
    except (LookupError, ValueError):
        return False


@attrs.frozen
class Reading:
    r"""How files are to be read; `auto` leaves it to what is found in them.

    Attributes:
        encoding: a codec that Python knows.
        delimiter: the one character between the cells of a CSV file, a tab also as `\t`.
        header: whether its first record names the columns.
        streaming: whether the rows of a hub dataset come over the network as they are read.
        kind: of all files, whatever their names say.
        fields: names of columns that are looked for; a record that has one of them is a header.

    Example:
        >>> Reading(encoding="latin-1", delimiter="\\t").delimiter
        '\t'
    """

    encoding: str = "auto"
    delimiter: str = attrs.field(default="auto", converter=_character)
    header: Literal["auto"] | bool = "auto"
    streaming: bool = False
    kind: FileKind | None = None
    fields: frozenset[str] = frozenset({"text", "prompt", "completion", "instruction", "input", "output", "messages"})

    @classmethod
    def of(cls, config: DataConfig) -> Self:
        """Take what a config says."""
        wanted = {name: getattr(config, name) for name in attrs.fields_dict(DataConfig) if name.endswith("_field")}
        fields = {each for name in wanted.values() for each in ([name] if isinstance(name, str) else name or ())}
        return cls(config.encoding, config.delimiter, config.header, config.streaming, fields=frozenset(fields))

    def check(self) -> None:
        """Refuse what no file can be read with.

        Raises:
            DatasetError: there is no such encoding, or the delimiter is none.
        """
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0'):
            hint = "give one character, like ',' or ';' or '\\t'"
            raise DatasetError(f"data.delimiter {self.delimiter!r} parts no columns", hint=hint)
        if self.encoding != "auto" and not _is_of_files(self.encoding):
            what = f"data.encoding {self.encoding!r} is no encoding of text"
            raise DatasetError(what, hint=did_you_mean(self.encoding.lower(), _USUAL))
