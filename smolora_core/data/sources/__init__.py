"""Read rows from files, the hub or memory: compression, encodings and file formats."""

from smolora_core.data.sources.located import Located, OnBad
from smolora_core.data.sources.reading import Reading
from smolora_core.data.sources.source import Kind, Source, open_source, peek

__all__ = ["Kind", "Located", "OnBad", "Reading", "Source", "open_source", "peek"]
