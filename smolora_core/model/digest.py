"""Tell whether a base model is still the one an adapter was begun on."""

from pathlib import Path
from typing import Any

from smolora_core.data.fingerprint import sampled_digest
from smolora_core.model.header import is_folder

_COUNT = ("config.json", "*.safetensors", "*.bin")


def model_digest(path: str, config: Any) -> str | None:
    """Digest the config and the weights of a model folder, or name the commit of a hub id; None where that is not known.

    Args:
        path: folder or hub id.
        config: the transformers config that was read from it.
    """
    if not is_folder(path):
        return getattr(config, "_commit_hash", None)
    folder = Path(path).expanduser()
    return sampled_digest(sorted(file for pattern in _COUNT for file in folder.glob(pattern)))
