"""Load a base model and its tokenizer."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers

from smolora_core.components import Task
from smolora_core.config import ModelConfig
from smolora_core.data.fingerprint import sampled_digest
from smolora_core.errors import ModelLoadError, first_line
from smolora_core.model.device import Precision, choose_dtype
from smolora_core.model.header import is_folder
from smolora_core.model.quantised import copy_mapped_weights, exclude_modules, unquantisable

_DIGESTED_FILES = ("config.json", "*.safetensors", "*.bin")


@attrs.frozen
class Base:
    """A base model, frozen and on its device, with its dtype and the names of its heads, which are trained in full."""

    model: Any
    precision: Precision
    heads: tuple[str, ...] = ()


def base_source(model: ModelConfig) -> str:
    """The absolute folder or the hub id: what an adapter records as its base, valid from any working directory."""
    return str(Path(model.path).expanduser().resolve()) if is_folder(model.path) else model.path


def read_config(model: ModelConfig, where: str = "") -> Any:
    """Read the model's transformers config.

    Raises:
        ModelLoadError: it cannot be read; a hub id that is not in the local cache needs the network.
    """
    return _from_pretrained(model, where, transformers.AutoConfig.from_pretrained)


def load_tokenizer(model: ModelConfig, where: str = "") -> Any:
    """Load the tokenizer unchanged; without a padding token, `padding_id` finds a substitute."""
    return _from_pretrained(model, where, transformers.AutoTokenizer.from_pretrained)


def precision_of(model: ModelConfig, device: torch.device, config: Any) -> Precision:
    """Choose the number format of a base model from the widths in its transformers config."""
    text = config.get_text_config()
    hidden = getattr(text, "hidden_size", None) or 512
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    return choose_dtype(model.dtype, device, hidden, inner)


def load_base(
    model: ModelConfig,
    task: Task,
    device: torch.device,
    config: Any,
    extra: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Base:
    """Load the base model for a task; `seed` initialises a new head.

    Memory strategies pass `extra` arguments of `from_pretrained`, and the task passes `changes` of the config, such as
    `num_labels`.

    Raises:
        ModelLoadError: the weights cannot be loaded, or some of them are missing.
    """
    chosen = (extra or {}).get("dtype")
    precision = Precision(chosen, "chosen by a memory strategy") if chosen else precision_of(model, device, config)
    auto = getattr(transformers, task.model_class)
    arguments = {"dtype": precision.dtype, "output_loading_info": True, **(changes or {}), **(extra or {})}
    if task.new_head:
        # A saved head with another number of labels is replaced by a new one.
        arguments["ignore_mismatched_sizes"] = True
    if quantisation := arguments.get("quantization_config"):
        # Weights are quantised on the device one by one; the unquantised model never has to fit in memory.
        arguments["device_map"] = {"": device}
        if name := unquantisable(auto, config):
            raise ModelLoadError(f"{name} has Conv1D layers, which cannot be quantised", hint="choose another base model")
    loaded, new = _load(model, auto, seed, arguments)
    if quantisation and task.new_head and exclude_modules(quantisation, loaded, {*_owners(new), *head_modules(loaded)}):
        loaded, new = _load(model, auto, seed, arguments)
    if missing := sorted(key for key in new if not task.new_head or not _may_be_head(loaded, key.rpartition(".")[0])):
        raise ModelLoadError(
            f"{model.path} has no weights for {len(missing)} tensors (first: {missing[0]!r})",
            hint=f"is it a {task.name} model?",
        )
    heads = tuple(sorted({*_owners(new), *head_modules(loaded)})) if task.new_head else ()
    loaded.requires_grad_(False)
    if quantisation:
        copy_mapped_weights(loaded)
    return Base(loaded if quantisation else loaded.to(device), precision, heads)


def _load(model: ModelConfig, auto: Any, seed: int, arguments: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Load a model and list the tensors that the folder has no weights for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loaded, info = _from_pretrained(model, "", auto.from_pretrained, **arguments)
    return loaded, [*info["missing_keys"], *(key for key, *_ in info.get("mismatched_keys", ()))]


def _owners(keys: Iterable[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in keys}


def _may_be_head(model: Any, module: str) -> bool:
    """Whether a module may belong to a head: it is neither in a numbered block nor an embedding."""
    numbered = any(part.isdigit() for part in module.split("."))
    return not numbered and not isinstance(model.get_submodule(module), torch.nn.Embedding)


def head_modules(model: Any) -> Iterator[str]:
    """Name the modules outside the backbone that have weights of their own."""
    backbone = f"{model.base_model_prefix}."
    for name, module in model.named_modules():
        if name and not f"{name}.".startswith(backbone) and any(True for _ in module.parameters(recurse=False)):
            yield name


def _from_pretrained(model: ModelConfig, where: str, load: Any, **arguments: Any) -> Any:
    try:
        return load(base_source(model), revision=model.revision, trust_remote_code=model.trust_remote_code, **arguments)
    except MemoryError:
        raise
    except Exception as error:  # loading fails in many ways that share no base class
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        hint = "check the folder" if is_folder(model.path) else f"a hub id needs the network{offline}"
        raise ModelLoadError(f"cannot load {model.path!r} ({first_line(error)})", where=where, hint=hint) from error


def model_digest(path: str, config: Any) -> str | None:
    """Digest a model folder's config and weights, or return a hub id's commit; None where that is unknown."""
    if not is_folder(path):
        return getattr(config, "_commit_hash", None)
    folder = Path(path).expanduser()
    return sampled_digest(sorted(file for pattern in _DIGESTED_FILES for file in folder.glob(pattern)))
