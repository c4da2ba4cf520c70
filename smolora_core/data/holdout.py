"""Which rows are held out of training when the user gives a fraction.

    for located, held_out in hold_out(source.rows(), 0.1, documents=source.documents):
        (eval_rows if held_out else train_rows).append(located)

Rows are judged one by one, so that a source of any size streams.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

import attrs

from smolora_core.data.sources.rows import Located

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode
_DIGEST_SIZE = 8
_DIGESTS = float(1 << 8 * _DIGEST_SIZE)


def hold_out(rows: Iterable[Located], fraction: float, *, documents: bool) -> Iterator[tuple[Located, bool]]:
    """Yield each row and whether it is held out; each document in two parts, of which the second is.

    A small source may come out with no row held out, because every row is judged by itself.
    """
    for located in rows:
        if not documents:
            yield located, is_held_out(located.row, fraction)
            continue
        for part, held_out in zip(cut_document(located, fraction), (False, True), strict=True):
            if part.row["text"]:
                yield part, held_out


def is_held_out(row: Mapping[str, Any], fraction: float) -> bool:
    """Whether a row falls into the fraction.

    It depends on nothing but the row's content: equal rows share a side, and a row keeps its side when others come or go or the
    fraction grows.

    Example:
        >>> is_held_out({"text": "fine", "stars": 4}, 0.5) == is_held_out({"stars": 4, "text": "fine"}, 0.5)
        True
    """
    digest = blake2b(_canonical(row).encode(), digest_size=_DIGEST_SIZE).digest()
    return int.from_bytes(digest, "big") < fraction * _DIGESTS


def cut_document(located: Located, fraction: float) -> tuple[Located, Located]:
    """Part a document into its head and the last `fraction` of its characters, at a line break if one is near.

    Returns:
        Two rows whose texts make up the document's; the second says the line it starts on.
    """
    text: str = located.row["text"]
    cut = len(text) - round(len(text) * fraction)
    # A break in the first half, after a title say, would hold out nearly everything.
    if (line_break := text.rfind("\n", cut // 2, cut)) >= 0:
        cut = line_break + 1
    head = attrs.evolve(located, row={**located.row, "text": text[:cut]})
    line = text.count("\n", 0, cut) + 1
    return head, Located({**located.row, "text": text[cut:]}, f"{located.where}:{line}")
