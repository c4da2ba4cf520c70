"""Load the model in a folder, an adapter or a whole model, as the class that its task was trained with."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import transformers
from peft import PeftModel

from smolora_core.checkpoints.manifest import MANIFEST, verify
from smolora_core.errors import CheckpointError, ModelLoadError, SmoLoRAError, first_line
from smolora_core.lora.modules_to_save import is_inside
from smolora_core.model.header import base_of_adapter

_BY_TASK = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "CAUSAL_LM": "AutoModelForCausalLM",
}
_BY_ENDING = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
}


def load_folder(folder: Path, dtype: str) -> tuple[Any, Any]:
    """Load a model and its tokenizer.

    Args:
        folder: the folder of an adapter, which names its base model, or of a whole model.
        dtype: the base model's number format; auto is the one it is stored in.

    Raises:
        ModelLoadError: the folder contains neither, is damaged, or its base model is missing.
        CheckpointError: a file does not match its manifest.
    """
    with _naming(folder):
        base = _base_of(folder)
        adapter = json.loads((folder / "adapter_config.json").read_bytes()) if base != str(folder) else {}
    check_manifest(folder)
    if Path(base).is_absolute() and not Path(base).is_dir():
        hint = "restore it, or change base_model_name_or_path in adapter_config.json"
        hint += f" and remove {MANIFEST}" if (folder / MANIFEST).is_file() else ""
        raise ModelLoadError(f"the base model {base!r} of {str(folder)!r} is missing", hint=hint)
    with _naming(base):
        # An adapter with its own head comes with the config that gives its size and the names of its labels.
        config = transformers.AutoConfig.from_pretrained(folder if (folder / "config.json").is_file() else base)
        auto = getattr(transformers, _auto_class(adapter, config))
        resized = {"ignore_mismatched_sizes": True} if adapter.get("modules_to_save") else {}
        model, info = auto.from_pretrained(base, config=config, dtype=dtype, output_loading_info=True, **resized)
    new = [*info["missing_keys"], *(key for key, *_ in info.get("mismatched_keys", ()))]
    if lost := sorted(key for key in new if not is_inside(key, adapter.get("modules_to_save") or ())):
        raise ModelLoadError(f"{base!r} has no weights for {len(lost)} tensors (first: {lost[0]!r})")
    with _naming(folder), warnings.catch_warnings():
        # PEFT itself uses a name that transformers has deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        has_tokenizer = (folder / "tokenizer_config.json").is_file()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder if has_tokenizer else base)
        return (PeftModel.from_pretrained(model, folder) if adapter else model), tokenizer


def _auto_class(adapter: dict[str, Any], config: Any) -> str:
    """Choose the auto class of a base model: by PEFT's task type, else by the class that was adapted or saved."""
    if task := _BY_TASK.get(adapter.get("task_type") or ""):
        return task
    adapted = (adapter.get("auto_mapping") or {}).get("base_model_class")
    for name in filter(None, (adapted, *(config.architectures or ()))):
        for ending, auto in _BY_ENDING.items():
            if name.endswith(ending):
                return auto
    return _BY_TASK["SEQ_2_SEQ_LM" if getattr(config, "is_encoder_decoder", False) else "CAUSAL_LM"]


def _base_of(folder: Path) -> str:
    """Read which base model an adapter belongs to; a whole model is its own base."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        if (folder / "config.json").is_file():
            return str(folder)
        below = folder / "adapter"
        hint = f"did you mean {str(below)!r}?" if (below / "adapter_config.json").is_file() else "give the adapter's folder"
        raise ModelLoadError(f"no adapter_config.json in {str(folder)!r}", hint=hint)
    if base := base_of_adapter(folder):
        return base
    raise ModelLoadError(f"the adapter in {str(folder)!r} is damaged (adapter_config.json names no base model)")


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Name the path in errors of what is loaded from it."""
    try:
        yield
    except (SmoLoRAError, MemoryError):
        raise
    except Exception as error:  # loading fails in many ways that share no base class
        raise ModelLoadError(f"cannot load {str(path)!r} ({first_line(error)})") from error


_HINT = f"copy the folder again, or remove {MANIFEST} if the change is intended"


def check_manifest(folder: Path) -> None:
    """Check every file of a folder against its manifest, if it has one.

    Raises:
        CheckpointError: a file is missing or has changed.
    """
    if not (folder / MANIFEST).is_file():
        return
    try:
        verify(folder.resolve())
    except CheckpointError as error:
        raise CheckpointError.of(attrs.evolve(each, hint=_HINT) for each in error.problems) from error
