"""Drop rows that resemble an earlier one."""

from collections.abc import Iterator
from typing import Any
from zlib import crc32

from smolora_core import DatasetError, Drop, PluginError
from smolora_plugins.preprocessors.columns import column, columns_of

_PERMUTATIONS = 128
_MISSED = 0.01
# Each shingle takes half a kilobyte in each of a few temporary arrays, and a row may be a whole book.
_BATCH = 10_000


class NearDedup:
    """Compare MinHash signatures of texts' shingles (Broder 1997); locality-sensitive hashing finds the candidates.

    Case and whitespace are ignored. Each kept row takes about 6 KB of memory.
    """

    def __init__(self, threshold: float, fields: tuple[str, ...], shingle: int) -> None:
        try:
            from datasketch import MinHash, MinHashLSH
        except ImportError as error:
            hint = 'pip install "smolora[dedup]"'
            raise PluginError("near-dedup needs datasketch, which is not installed", hint=hint) from error
        self._threshold = threshold
        self._fields = fields
        self._shingle = shingle
        self._blank = MinHash(_PERMUTATIONS, hashfunc=crc32)
        rows = _rows_per_band(threshold)
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=(_PERMUTATIONS // rows, rows))
        self._kept: list[Any] = []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | Drop:
        """Keep the first of similar rows.

        Raises:
            DatasetError: a column is missing, or none contains text.
        """
        signature = self._blank.copy()
        shingles = self._shingles(row)
        for start in range(0, len(shingles), _BATCH):
            signature.update_batch(shingles[start : start + _BATCH])
        if any(self._kept[number].jaccard(signature) >= self._threshold for number in self._index.query(signature)):
            return Drop("resembles an earlier row")
        self._index.insert(len(self._kept), signature, check_duplication=False)
        self._kept.append(signature)
        return row

    def _shingles(self, row: dict[str, Any]) -> list[bytes]:
        values = [column(row, field) for field in self._fields] if self._fields else list(row.values())
        texts = list(_texts(values))
        if not texts:
            raise DatasetError("has no text to compare", hint=columns_of(row))
        text = " ".join(" ".join(texts).casefold().split())
        starts = range(max(1, len(text) - self._shingle + 1))
        return [each.encode("utf-8", "surrogatepass") for each in {text[start : start + self._shingle] for start in starts}]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value, including those of a conversation."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _rows_per_band(threshold: float) -> int:
    """Choose the most values per band of a signature that still miss fewer than 1% of the pairs at the threshold."""
    found = (rows for rows in (32, 16, 8, 4, 2) if (1 - threshold**rows) ** (_PERMUTATIONS // rows) < _MISSED)
    return next(found, 1)
