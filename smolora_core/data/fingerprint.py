"""Fingerprint everything that prepared rows depend on: equal fingerprints mean equal tokens and labels."""

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

_READ_IN_FULL = 64 * 2**20
_SAMPLES = 1024
_BLOCK = 64 * 2**10


def fingerprint(depends_on: Mapping[str, Any]) -> str | None:
    """Hash the plain values that a result depends on, with our own code and the installed packages; None if one is None."""
    if any(value is None for value in depends_on.values()):
        return None
    return text_digest(canonical_json({**depends_on, "core": package_digest(__name__), "environment": environment()}))


def source_digest(source: Source) -> str | None:
    """Digest the content of a source and the paths of its files; None for rows that JSON cannot represent."""
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
    """Digest a text; None counts as an empty one."""
    return hashlib.blake2b((text or "").encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def sampled_digest(files: Iterable[Path]) -> str:
    """Digest files of any size quickly, by name and content.

    Files of up to 64 MiB are read in full; larger ones are sampled at 1,024 evenly spaced blocks of 64 KiB.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as stream:
            if size <= _READ_IN_FULL:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for number in range(_SAMPLES):
                stream.seek(number * (size - _BLOCK) // (_SAMPLES - 1))
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def sequences_digest(dataset: Any) -> str | None:
    """Digest the token sequences of a `datasets.Dataset`; None for streamed rows, which are not known in advance."""
    if not hasattr(dataset, "data"):
        return None
    digest = hashlib.blake2b(str(dataset.features).encode(), digest_size=20)
    for table in dataset.with_format("arrow").iter(1000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.hexdigest()


def components_digest(components: Iterable[Chosen[Component]]) -> list[Any] | None:
    """Identify components, in order, by name, options and code digest; None if one has no code digest."""
    found = []
    for each in components:
        options = {} if each.options is None else attrs.asdict(each.options)
        found.append([each.registered.qualified_name, json.loads(json.dumps(options, default=str)), each.code])
    return None if any(code is None for _, _, code in found) else found


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Digest a tokenizer's rules and chat template; None for one implemented in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    known = [kind, backend.to_str(), tokenizer.chat_template, dict(tokenizer.special_tokens_map), tokenizer.model_max_length]
    return text_digest(json.dumps(known, default=str, sort_keys=True))
