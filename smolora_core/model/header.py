"""A model folder's config and weight shapes, read without torch."""

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
    """The config of a model folder and the shapes of its weights, which are unknown where none are in safetensors files."""

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    has_weights: bool
    has_tokenizer: bool

    @property
    def model_type(self) -> str:
        """The architecture's name, which plugins match."""
        return str(self.config.get("model_type", ""))

    @property
    def positions(self) -> int | None:
        """The longest sequence in tokens; None where the config has no limit or positions are relative."""
        relative = "relative_attention_num_buckets" in self.config
        return None if relative else self._number("max_position_embeddings", "n_positions", "seq_length")

    @property
    def vocab_size(self) -> int | None:
        """The size of the vocabulary; None where the config lacks it."""
        return self._number("vocab_size")

    @property
    def modules(self) -> dict[str, tuple[int, ...]]:
        """The modules with a matrix as weight, and its shape, in file order; heads and embeddings are left out."""
        matrices = {name.removesuffix(".weight"): shape for name, shape in self.shapes.items() if name.endswith(".weight")}
        return {name: shape for name, shape in matrices.items() if len(shape) == 2 and not is_head_or_embedding(name)}

    @property
    def tied(self) -> bool:
        """Whether the head shares its weights with the embeddings."""
        return self.config.get("tie_word_embeddings") is True

    def _number(self, *names: str) -> int | None:
        """Find a positive integer in the config; a multimodal model's text config takes precedence."""
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
    except OSError:  # for example, the name is too long
        return False


def read_header(path: str | Path, where: str = "") -> ModelHeader:
    """Read a model folder's config and safetensors headers.

    Raises:
        ModelLoadError: the folder is missing, unreadable, damaged, an adapter, or has no config.json.
    """
    try:
        folder = Path(path).expanduser()
        if not (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            raise _not_a_model(path, folder, where)
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
    """Read the base model that an adapter's config names; None where it names none."""
    try:
        base = _read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    except ValueError:
        return None
    return base if isinstance(base, str) and base else None


def _not_a_model(path: str | Path, folder: Path, where: str) -> ModelLoadError:
    if (folder / "adapter_config.json").is_file():
        base = base_of_adapter(folder)
        belongs = f"; its base model is {base!r}" if base else ""
        return ModelLoadError(f"{str(path)!r} is an adapter{belongs}", where=where, hint="set model to its base model")
    return ModelLoadError(f"no folder {str(path)!r} with a config.json", where=where, hint=_suggest(folder))


def _read_object(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return values


def _weight_files(folder: Path) -> list[Path]:
    """List the files that transformers loads; the folder may contain the same weights under other names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    files = _read_object(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise ValueError(f"{index.name} has no valid weight_map")
    return [folder / Path(name).name for name in sorted(set(files.values()))]


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    # The format: 8 bytes of little-endian length, that much JSON, the tensors (huggingface/safetensors, README).
    size = file.stat().st_size
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if 8 + length > size:
            raise ValueError(f"{file.name} is truncated")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"the header of {file.name} is not a JSON object")
    header.pop("__metadata__", None)
    try:
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        shapes = {name: tuple(map(operator.index, entry["shape"])) for name, entry in header.items()}
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"{file.name} has a tensor without a shape or data_offsets") from None
    if 8 + length + end != size:
        raise ValueError(f"{file.name} is truncated")
    return shapes


def _suggest(folder: Path) -> str:
    models = sorted(path.parent.name for path in folder.parent.glob("*/config.json"))
    if near := get_close_matches(folder.name, models, n=1):
        closest = folder.parent / near[0]
        spelling = str(closest) if closest.is_absolute() else f"./{closest}"
        return f"did you mean {spelling!r}?"
    return f"model folders there: {', '.join(models)}" if models else ""
