"""Datasets on the Hugging Face hub."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import attrs

from smolora_core.data.sources.files import KINDS, near_name
from smolora_core.errors import DatasetError, first_line

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_CONFIG = re.compile(r"[A-Za-z0-9_.-]*")
# Slices and sums of splits too: train[:10%]+test
_SPLIT = re.compile(r"[A-Za-z0-9_.\[\]:%+-]+")
_find_configs = re.compile(r"available configs: \[(.*)\]").search


@attrs.frozen
class HubId:
    """`owner/name`, `owner/name:config`, `owner/name:config:split` or `owner/name::split`.

    Example:
        >>> HubId.parse("openai/gsm8k:main:test")
        HubId(name='openai/gsm8k', config='main', split='test')
    """

    name: str
    config: str | None = None
    split: str = "train"

    @classmethod
    def parse(cls, spec: str) -> Self | None:
        """Parse a hub id; return None for anything that could be a path, and for ids whose first part is an existing file."""
        name, config, split = [*spec.split(":", 2), "", ""][:3]
        path = Path(name)
        # 'gpt-4.1' has no extension, 'reviews.xlsx' has one.
        looks_like_file = path.suffix.lower() in KINDS or path.suffix[1:].isalpha()
        first = path.parent if path.parent.name else path
        fits = _NAME.fullmatch(name) and _CONFIG.fullmatch(config) and _SPLIT.fullmatch(split or "train")
        return cls(name, config or None, split or "train") if fits and not looks_like_file and not first.exists() else None

    def rows(self, *, streaming: bool = False) -> Iterator[Any]:
        """Download the dataset, or stream it over the network; raise a DatasetError if that fails at any point."""
        from datasets.load import load_dataset

        load: Callable[..., Iterable[Any]] = load_dataset
        try:
            yield from load(self.name, self.config, split=self.split, streaming=streaming)
        except Exception as error:  # the many ways in which loading fails share no base class
            configs = _find_configs(str(error))
            hint = f"append one of its configs after a colon: {configs[1]}" if configs else near_name(self.name)
            raise DatasetError(f"cannot be loaded from the hub ({first_line(error)})", where=self.name, hint=hint) from error
