"""From files, the hub or memory to rows: bytes, encodings, and the formats that files have."""

from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.sources.reading import Reading
from smolora_core.data.sources.source import Kind, Source, open_source, peek

__all__ = ["Kind", "Located", "OnBad", "Reading", "Source", "open_source", "peek"]
