"""What the bytes of a text tell about its encoding."""

import codecs
import re
from collections.abc import Iterable, Mapping

# UTF-32's mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Which bytes out of four are often zero in a text that is at least partly ASCII.
_ZEROS: Mapping[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
}
_OFTEN = 0.3
_ASCII = bytes(range(0x80))
# Of what windows-1252 has in place of control characters: euro, ellipsis, quotes, bullet, dashes, trade mark.
_TYPOGRAPHIC = {0x80, 0x85, *range(0x91, 0x98), 0x99}
_CONTROLS = set(range(0x80, 0xA0))
_find_runs = re.compile(rb"[\x80-\xff]{3,}").findall
_find_utf8 = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}").findall


def marked(head: bytes) -> str:
    """Name the codec whose byte order mark a file begins with; empty where there is no mark."""
    return next((codec for mark, codec in _MARKS if head.startswith(mark)), "")


def with_zeros(head: bytes) -> str:
    """Name the codec that a text without a mark has by its zero bytes: UTF-16 or UTF-32; empty where it is neither."""
    columns = [head[offset::4] for offset in range(4)]
    codec = _ZEROS.get(tuple(column.count(0) > len(column) * _OFTEN for column in columns))
    try:
        return codec if codec and codecs.getincrementaldecoder(codec)().decode(head) else ""
    except UnicodeDecodeError:
        return ""


def western(chunks: Iterable[bytes]) -> str:
    """Name the western encoding that bytes which are no UTF-8 may have; empty where it may be any of many encodings.

    In western languages accented letters are few and stand among others. Where a quarter of the bytes is above ASCII, or most
    of these stand together, the language is another one. Where most make up characters of UTF-8, it is UTF-8 with a flaw.
    """
    size = above = together = utf8 = 0
    controls: set[int] = set()
    for chunk in chunks:
        if b"\0" in chunk:
            return ""
        beyond = chunk.translate(None, _ASCII)
        size += len(chunk)
        above += len(beyond)
        together += sum(map(len, _find_runs(chunk)))
        utf8 += sum(map(len, _find_utf8(chunk)))
        controls |= _CONTROLS.intersection(beyond)
    if above * 4 >= size or together * 2 > above or utf8 * 2 > above:
        return ""
    return "windows-1252" if controls and controls <= _TYPOGRAPHIC else "latin-1"
