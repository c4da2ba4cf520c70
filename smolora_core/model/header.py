"""What a model folder says about itself without torch: its config and the names of its weights."""

import json
import re
import struct
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs

from smolora_core.errors import ModelLoadError

__all__ = ["ModelHeader", "is_folder", "is_head_or_embedding", "read_header"]

_HEAD_OR_EMBEDDING = re.compile(
    r"(^|\.)(lm_head|embed_out|shared|wte|wpe|relative_attention_bias|\w*embed(s|ding|dings|_\w+)?)$"
)


@attrs.frozen
class ModelHeader:
    """The config and the weights' shapes of a model folder.

    Attributes:
        config: config.json.
        shapes: weight name to shape; empty where the folder holds no safetensors.
    """

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def model_type(self) -> str:
        """The architecture's name, as plugins know it."""
        return str(self.config.get("model_type", ""))

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose weight is a matrix, but for heads and embeddings, in the order of the files."""
        matrices = (name for name, shape in self.shapes.items() if name.endswith(".weight") and len(shape) == 2)
        return tuple(module for name in matrices if not is_head_or_embedding(module := name.removesuffix(".weight")))


def is_head_or_embedding(module: str) -> bool:
    """Whether a module's name is one that models give to their output head or to a table of embeddings."""
    return _HEAD_OR_EMBEDDING.search(module) is not None


def is_folder(path: str) -> bool:
    """Whether a model path means a folder rather than a hub id."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).is_dir()


def read_header(path: str | Path, where: str = "") -> ModelHeader:
    """Read a model folder's config and safetensors headers.

    Args:
        path: the base model's folder, as the user wrote it.
        where: where the user wrote it.

    Raises:
        ModelLoadError: there is no such folder, no config.json in it, or one of the files is damaged.
    """
    folder = Path(path).expanduser()
    config = folder / "config.json"
    if not config.is_file():
        raise ModelLoadError(f"no folder {str(path)!r} with a config.json", where=where, hint=_near(folder))
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        shapes: dict[str, tuple[int, ...]] = {}
        for file in _weight_files(folder):
            shapes.update(_shapes(file))
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise ModelLoadError(f"the model in {str(path)!r} is damaged ({error})", where=where) from error
    return ModelHeader(values, shapes)


def _weight_files(folder: Path) -> list[Path]:
    """List the files that transformers loads; others, in another naming say, may lie beside them."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        return [folder / Path(name).name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors"))


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    # The format: 8 bytes of little-endian length, that much JSON, the tensors (huggingface/safetensors, README).
    size = file.stat().st_size
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if 8 + length > size:
            raise ValueError(f"{file.name} is cut off")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    if 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0) != size:
        raise ValueError(f"{file.name} is cut off")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _near(folder: Path) -> str:
    if not folder.parent.is_dir():
        return ""
    models = [path.parent.name for path in folder.parent.glob("*/config.json")]
    near = get_close_matches(folder.name, models, n=1)
    shown = folder.parent / near[0] if near else None
    if shown is None:
        return f"folders with one: {', '.join(sorted(models))}" if models else ""
    spelt = f"./{shown}" if not shown.is_absolute() else str(shown)
    return f"did you mean {spelt!r}?"
