"""Load a base model and its tokenizer."""

import os
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from safetensors import SafetensorError

from smolora_core.components import Task
from smolora_core.config import ModelConfig
from smolora_core.errors import ModelLoadError
from smolora_core.model.device import Precision, choose_dtype
from smolora_core.model.header import is_folder

__all__ = ["Base", "load_base", "load_tokenizer", "padding_id", "read_config", "source_of"]


@attrs.frozen
class Base:
    """A loaded base model.

    Attributes:
        model: frozen, on its device, in its dtype.
        precision: the dtype and why.
    """

    model: Any
    precision: Precision


def source_of(model: ModelConfig) -> str:
    """The absolute folder, or the hub id: what an adapter must name so that it is found from any working directory."""
    return str(Path(model.path).expanduser().resolve()) if is_folder(model.path) else model.path


def read_config(model: ModelConfig, where: str = "") -> Any:
    """Read the model's transformers config.

    Raises:
        ModelLoadError: it cannot be read; a hub id that is not in the local cache needs the network.
    """
    return _loading(model, where, transformers.AutoConfig.from_pretrained)


def load_tokenizer(model: ModelConfig, where: str = "") -> Any:
    """Load the tokenizer as it is; what pads where it has no padding token, `padding_id` says."""
    return _loading(model, where, transformers.AutoTokenizer.from_pretrained)


def padding_id(tokenizer: Any) -> int:
    """Choose what fills a batch up; masks and labels tell it from text, so any token will do.

    The tokenizer is left alone: a token made its padding token would be a special one, and vanish from decoded text.
    """
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, 0)
    return next(int(token) for token in known if token is not None)


def load_base(model: ModelConfig, task: Task, device: torch.device, config: Any, extra: dict[str, Any] | None = None) -> Base:
    """Load the base model for a task.

    Args:
        model: path, dtype and whether its code may run.
        task: names the transformers class.
        device: where it goes.
        config: its transformers config.
        extra: further keyword arguments of `from_pretrained`, from memory strategies.

    Raises:
        ModelLoadError: the weights cannot be loaded, or some of them are missing.
    """
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", None) or 512
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    precision = choose_dtype(model.dtype, device, hidden, inner)
    auto = getattr(transformers, task.model_class)
    loaded, info = _loading(model, "", auto.from_pretrained, dtype=precision.dtype, output_loading_info=True, **(extra or {}))
    if missing := sorted(info["missing_keys"]):
        raise ModelLoadError(
            f"{model.path} has no weights for {len(missing)} tensors, {missing[0]!r} among them",
            hint=f"is it a {task.name} model?",
        )
    loaded.requires_grad_(False)
    return Base(loaded.to(device), precision)


def _loading(model: ModelConfig, where: str, load: Any, **arguments: Any) -> Any:
    try:
        return load(source_of(model), revision=model.revision, trust_remote_code=model.trust_remote_code, **arguments)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        hint = "check the folder" if is_folder(model.path) else f"a hub id needs the network{offline}"
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelLoadError(f"cannot load {model.path!r} ({first})", where=where, hint=hint) from error
