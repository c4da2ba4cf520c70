"""Guess the encoding of a text from its bytes."""

import codecs
import re
from collections.abc import Iterable, Mapping

# UTF-32's mark starts with UTF-16's, so it is tried first.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Which of every four bytes are often zero in a text that is at least partly ASCII.
_ZERO_PATTERNS: Mapping[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
}
_OFTEN = 0.3
_ASCII = bytes(range(0x80))
# What windows-1252 puts in place of some control characters: euro, ellipsis, quotes, bullet, dashes, trade mark.
_TYPOGRAPHIC = {0x80, 0x85, *range(0x91, 0x98), 0x99}
_CONTROLS = set(range(0x80, 0xA0))
_find_runs = re.compile(rb"[\x80-\xff]{3,}").findall
_find_utf8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}").findall


def codec_by_mark(head: bytes) -> str:
    """Name the codec of the byte order mark that a file starts with; empty if there is none."""
    return next((codec for mark, codec in _BYTE_ORDER_MARKS if head.startswith(mark)), "")


def codec_by_zeros(head: bytes) -> str:
    """Recognise unmarked UTF-16 or UTF-32 by its zero bytes; empty if it is neither."""
    columns = [head[offset::4] for offset in range(4)]
    codec = _ZERO_PATTERNS.get(tuple(column.count(0) > len(column) * _OFTEN for column in columns))
    try:
        return codec if codec and codecs.getincrementaldecoder(codec)().decode(head) else ""
    except UnicodeDecodeError:
        return ""


def guess_western(chunks: Iterable[bytes]) -> str:
    """Guess between the western encodings for bytes that are not UTF-8; empty if the language does not look western.

    Western languages have few accented letters, scattered among plain ones. If a quarter of the bytes is above ASCII, or most
    of those are adjacent, the language is another one. If most of them form UTF-8 characters, the text is damaged UTF-8.
    """
    size = above = adjacent = utf8 = 0
    controls: set[int] = set()
    for chunk in chunks:
        if b"\0" in chunk:
            return ""
        beyond = chunk.translate(None, _ASCII)
        size += len(chunk)
        above += len(beyond)
        adjacent += sum(map(len, _find_runs(chunk)))
        utf8 += sum(map(len, _find_utf8(chunk)))
        controls |= _CONTROLS.intersection(beyond)
    if above * 4 >= size or adjacent * 2 > above or utf8 * 2 > above:
        return ""
    return "windows-1252" if controls and controls <= _TYPOGRAPHIC else "latin-1"
