"""The shapes of a model whose folder has no weights."""

from pathlib import Path

import torch
import transformers

from smolora_core import ModelLoadError, first_line


def shapes_of(folder: Path, where: str = "") -> dict[str, tuple[int, ...]]:
    """Read the shapes of a model's parameters from its config.json alone.

    Raises:
        ModelLoadError: transformers does not know the architecture, or cannot build it.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        named = (getattr(transformers, name, None) for name in config.architectures or ())
        kind = next(filter(None, named), None)
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config) if kind is None else kind(config)
    except Exception as error:
        what = f"the model in {str(folder)!r} has no safetensors, and cannot be built from its config ({first_line(error)})"
        raise ModelLoadError(what, where=where) from error
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
