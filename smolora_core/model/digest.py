"""Tell whether a base model is still the one an adapter was begun on."""

import hashlib
from pathlib import Path
from typing import Any

from smolora_core.model.header import is_folder

__all__ = ["folder_digest", "model_digest"]

_WHOLE = 64 * 2**20
_SAMPLES = 1024
_BLOCK = 64 * 2**10


def model_digest(path: str, config: Any) -> str | None:
    """Digest a model folder, or name the commit of a hub id; None where that is not known.

    Args:
        path: folder or hub id.
        config: the transformers config that was read from it.
    """
    return folder_digest(Path(path).expanduser()) if is_folder(path) else getattr(config, "_commit_hash", None)


def folder_digest(folder: Path) -> str:
    """Digest the config and the weights of a model folder.

    Files up to 64 MiB count whole. Of a larger one its size and 1,024 blocks of 64 KiB spread over it count, so that a model
    of any size takes a moment; other weights of the same shape differ in every block.
    """
    digest = hashlib.sha256()
    for file in sorted(path for pattern in ("config.json", "*.safetensors", "*.bin") for path in folder.glob(pattern)):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
                continue
            for number in range(_SAMPLES):
                stream.seek(number * (size - _BLOCK) // (_SAMPLES - 1))
                digest.update(stream.read(_BLOCK))
    return digest.hexdigest()
