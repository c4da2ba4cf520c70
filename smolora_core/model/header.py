"""What a model folder says about itself without torch: its config and the names of its weights."""

import json
import operator
import struct
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import attrs

from smolora_core.errors import ModelLoadError
from smolora_core.model.roles import is_head_or_embedding

_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


@attrs.frozen
class ModelHeader:
    """The config and the weights' shapes of a model folder.

    Attributes:
        config: config.json.
        shapes: weight name to shape; empty where the folder holds no safetensors.
        has_weights: whether there are files of weights, in whatever format.
        has_tokenizer: whether there are files of a tokenizer.
    """

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    has_weights: bool
    has_tokenizer: bool

    @property
    def model_type(self) -> str:
        """The architecture's name, as plugins know it."""
        return str(self.config.get("model_type", ""))

    @property
    def positions(self) -> int | None:
        """Tokens in a sequence at most; None where the config names no such number, or positions are relative."""
        relative = "relative_attention_num_buckets" in self.config
        return None if relative else self._number("max_position_embeddings", "n_positions", "seq_length")

    @property
    def vocab_size(self) -> int | None:
        """Tokens that the model knows; None where the config does not say."""
        return self._number("vocab_size")

    @property
    def modules(self) -> dict[str, tuple[int, ...]]:
        """The modules whose weight is a matrix, but for heads and embeddings, in the order of the files, with its shape."""
        matrices = {name.removesuffix(".weight"): shape for name, shape in self.shapes.items() if name.endswith(".weight")}
        return {name: shape for name, shape in matrices.items() if len(shape) == 2 and not is_head_or_embedding(name)}

    @property
    def tied(self) -> bool:
        """Whether the head shares its weights with the embeddings."""
        return self.config.get("tie_word_embeddings") is True

    def _number(self, *names: str) -> int | None:
        """Find a number above 0 in the config; that of a model's language part comes first."""
        text = self.config.get("text_config")
        sections = (text if isinstance(text, dict) else {}, self.config)
        values = (section.get(name) for section in sections for name in names)
        return next((value for value in values if type(value) is int and value > 0), None)


def is_folder(path: str) -> bool:
    """Whether a model path means a folder rather than a hub id."""
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        return True
    try:
        return Path(path).is_dir()
    except OSError:  # Too long for a name, say.
        return False


def read_header(path: str | Path, where: str = "") -> ModelHeader:
    """Read a model folder's config and safetensors headers.

    Args:
        path: the base model's folder, as the user wrote it.
        where: where the user wrote it.

    Raises:
        ModelLoadError: there is no such folder, it cannot be read, it holds no config.json or an adapter instead, or one of
            the files is damaged.
    """
    try:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            raise _no_model(path, folder, where)
        values = _read_object(folder / "config.json")
        shapes: dict[str, tuple[int, ...]] = {}
        for file in _weight_files(folder):
            shapes.update(_shapes(file))
        has_weights, has_tokenizer = (any(any(folder.glob(name)) for name in names) for names in (_WEIGHTS, _TOKENIZER))
    except (ValueError, RecursionError, struct.error) as error:
        raise ModelLoadError(f"the model in {str(path)!r} is damaged ({error})", where=where) from error
    except (OSError, RuntimeError) as error:
        reason = f"{Path(error.filename).name}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        raise ModelLoadError(f"the model in {str(path)!r} cannot be read ({reason})", where=where) from error
    return ModelHeader(values, shapes, has_weights, has_tokenizer)


def base_of_adapter(folder: Path) -> str | None:
    """Read which base model the adapter in a folder belongs to; None when its config does not say."""
    try:
        base = _read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    except ValueError:
        return None
    return base if isinstance(base, str) and base else None


def _no_model(path: str | Path, folder: Path, where: str) -> ModelLoadError:
    if (folder / "adapter_config.json").is_file():
        base = base_of_adapter(folder)
        belongs = f"; its base model is {base!r}" if base else ""
        return ModelLoadError(f"{str(path)!r} is an adapter{belongs}", where=where, hint="set model to the base")
    return ModelLoadError(f"no folder {str(path)!r} with a config.json", where=where, hint=_near(folder))


def _read_object(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return values


def _weight_files(folder: Path) -> list[Path]:
    """List the files that transformers loads; others, in another naming say, may lie beside them."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    files = _read_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"{index.name} names no files")
    return [folder / Path(name).name for name in sorted(set(files.values()))]


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    # The format: 8 bytes of little-endian length, that much JSON, the tensors (huggingface/safetensors, README).
    size = file.stat().st_size
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if 8 + length > size:
            raise ValueError(f"{file.name} is cut off")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"the header of {file.name} is no JSON object")
    header.pop("__metadata__", None)
    try:
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        shapes = {name: tuple(map(operator.index, entry["shape"])) for name, entry in header.items()}
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"{file.name} has a tensor without a shape or a place") from None
    if 8 + length + end != size:
        raise ValueError(f"{file.name} is cut off")
    return shapes


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
