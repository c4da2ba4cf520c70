"""What prepared rows depend on, as one name: equal names, equal tokens and labels."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from smolora_core.components import Component
from smolora_core.config.dump import canonical_json
from smolora_core.data.sources import Source
from smolora_core.plugins.selection import Chosen
from smolora_core.plugins.source_digest import environment, package_digest

_WHOLE = 64 * 2**20
_SAMPLES = 1024
_BLOCK = 64 * 2**10


def fingerprint(depends_on: Mapping[str, Any]) -> str | None:
    """Name what was prepared from plain values; None where one of them is None, because it cannot be told."""
    if any(value is None for value in depends_on.values()):
        return None
    return hashlib.blake2b(canonical_json(depends_on).encode(), digest_size=20).hexdigest()


def surroundings() -> dict[str, str]:
    """Digest what takes part in every preparation: our own code, and everything that is installed."""
    return {"core": package_digest(__name__), "environment": environment()}


def source_digest(source: Source) -> str | None:
    """Digest what a source holds, and the names that its rows are located by; None for rows that are more than JSON."""
    digest = hashlib.blake2b(digest_size=20)
    if source.files:
        for file in source.files:
            digest.update(file.as_posix().encode("utf-8", "surrogateescape"))
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
        return digest.hexdigest()
    try:
        for located in source.rows(lambda problem: None):
            digest.update(canonical_json(located.row).encode("utf-8", "surrogatepass"))
    except (TypeError, ValueError):
        return None
    return digest.hexdigest()


def text_digest(text: str | None) -> str:
    """Digest a text, or that there is none."""
    return hashlib.blake2b((text or "").encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def sampled_digest(files: Iterable[Path]) -> str:
    """Digest files by name and content, of any size in a moment.

    Up to 64 MiB a file counts whole; of a larger one its size and 1,024 blocks of 64 KiB spread over it count.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as stream:
            if size <= _WHOLE:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for number in range(_SAMPLES):
                stream.seek(number * (size - _BLOCK) // (_SAMPLES - 1))
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def sequences_digest(dataset: Any) -> str | None:
    """Digest the token sequences of a `datasets.Dataset`; None for rows that are streamed, which nobody has seen."""
    if not hasattr(dataset, "data"):
        return None
    digest = hashlib.blake2b(str(dataset.features).encode(), digest_size=20)
    for table in dataset.with_format("arrow").iter(1000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def components_digest(components: Iterable[Chosen[Component]]) -> list[Any] | None:
    """Name components in their order, each with its options and a digest of its code; None where one has no such digest."""
    found = []
    for each in components:
        options = {} if each.options is None else attrs.asdict(each.options)
        found.append([each.registered.qualified_name, json.loads(json.dumps(options, default=str)), each.code])
    return None if any(code is None for _, _, code in found) else found


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Digest how a tokenizer tokenises and renders a chat; None for one whose rules are Python code."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    known = [kind, backend.to_str(), tokenizer.chat_template, dict(tokenizer.special_tokens_map), tokenizer.model_max_length]
    text = json.dumps(known, default=str, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
