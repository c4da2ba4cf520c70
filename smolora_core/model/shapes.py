"""The shapes of a model whose weights are not there: it is built without memory for them."""

from pathlib import Path

import torch
import transformers

from smolora_core.errors import ModelLoadError


def shapes_of(folder: Path, where: str = "") -> dict[str, tuple[int, ...]]:
    """Build a model from its config.json on torch's meta device, and read the shapes off it.

    Raises:
        ModelLoadError: transformers does not know the architecture, or cannot build it.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        named = (getattr(transformers, name, None) for name in config.architectures or ())
        kind = next(filter(None, named), None)
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config) if kind is None else kind._from_config(config)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"the model in {str(folder)!r} has no safetensors, and cannot be built from its config ({reason})"
        raise ModelLoadError(what, where=where) from error
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
