"""Leave rows out that are nearly like an earlier one."""

from collections.abc import Iterator
from typing import Any
from zlib import crc32

from smolora_core import DatasetError, Drop, PluginError
from smolora_plugins.preprocessors.columns import column, has

_PERMUTATIONS = 128
_MISSED = 0.01
# Each shingle takes half a kilobyte for each of a few passing arrays, and a row may be a book.
_AT_ONCE = 10_000


class NearDedup:
    """Compares texts by MinHash signatures of their shingles (Broder 1997), and finds candidates by locality-sensitive hashing.

    Case and white space do not count. A row that stays takes about 6 KB of memory.
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
        rows = _rows_of_a_band(threshold)
        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=(_PERMUTATIONS // rows, rows))
        self._kept: list[Any] = []

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | Drop:
        """Let the first of similar rows through.

        Raises:
            DatasetError: a column is not there, or none of them holds text.
        """
        signature = self._blank.copy()
        shingles = self._shingles(row)
        for start in range(0, len(shingles), _AT_ONCE):
            signature.update_batch(shingles[start : start + _AT_ONCE])
        if any(self._kept[number].jaccard(signature) >= self._threshold for number in self._index.query(signature)):
            return Drop("resembles an earlier row")
        self._index.insert(len(self._kept), signature, check_duplication=False)
        self._kept.append(signature)
        return row

    def _shingles(self, row: dict[str, Any]) -> list[bytes]:
        values = [column(row, field) for field in self._fields] if self._fields else list(row.values())
        texts = list(_texts(values))
        if not texts:
            raise DatasetError("has no text to compare", hint=has(row))
        whole = " ".join(" ".join(texts).casefold().split())
        starts = range(max(1, len(whole) - self._shingle + 1))
        return [each.encode("utf-8", "surrogatepass") for each in {whole[start : start + self._shingle] for start in starts}]


def _texts(value: Any) -> Iterator[str]:
    """Find the texts in a value, those of a conversation too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _rows_of_a_band(threshold: float) -> int:
    """Choose how many values of a signature must agree for two rows to be compared: as many as miss next to no pair."""
    found = (rows for rows in (32, 16, 8, 4, 2) if (1 - threshold**rows) ** (_PERMUTATIONS // rows) < _MISSED)
    return next(found, 1)
