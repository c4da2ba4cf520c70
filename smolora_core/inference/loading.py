"""The model in a folder, with an adapter or whole, as the class that its task was learned by."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import transformers
from peft import PeftModel

from smolora_core.checkpoints import manifest
from smolora_core.checkpoints.manifest import MANIFEST
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
        folder: an adapter's, which names its base, or a whole model's.
        dtype: of the base; auto is what it is stored in.

    Raises:
        ModelLoadError: it is no such folder, it is damaged, or its base model is gone.
        CheckpointError: a file is not what its manifest says.
    """
    with _naming(folder):
        base = _base_of(folder)
        adapter = json.loads((folder / "adapter_config.json").read_bytes()) if base != str(folder) else {}
    verify(folder)
    if Path(base).is_absolute() and not Path(base).is_dir():
        hint = "put it back, or change base_model_name_or_path in adapter_config.json"
        hint += f" and remove {MANIFEST}" if (folder / MANIFEST).is_file() else ""
        raise ModelLoadError(f"the base model {base!r} of {str(folder)!r} is gone", hint=hint)
    with _naming(base):
        # Beside a head of its own an adapter has the config that says how large it is, and what its labels mean.
        config = transformers.AutoConfig.from_pretrained(folder if (folder / "config.json").is_file() else base)
        auto = getattr(transformers, _auto_class(adapter, config))
        resized = {"ignore_mismatched_sizes": True} if adapter.get("modules_to_save") else {}
        model, info = auto.from_pretrained(base, config=config, dtype=dtype, output_loading_info=True, **resized)
    new = [*info["missing_keys"], *(key for key, *_ in info.get("mismatched_keys", ()))]
    if lost := sorted(key for key in new if not is_inside(key, adapter.get("modules_to_save") or ())):
        raise ModelLoadError(f"{base!r} has no weights for {len(lost)} tensors, {lost[0]!r} among them")
    with _naming(folder), warnings.catch_warnings():
        # Of PEFT's own use of a name that transformers has changed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        has_tokenizer = (folder / "tokenizer_config.json").is_file()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder if has_tokenizer else base)
        return (PeftModel.from_pretrained(model, folder) if adapter else model), tokenizer


def _auto_class(adapter: dict[str, Any], config: Any) -> str:
    """Name what loads a base: by PEFT's word for the task, else by the class that was adapted or saved."""
    if task := _BY_TASK.get(adapter.get("task_type") or ""):
        return task
    adapted = (adapter.get("auto_mapping") or {}).get("base_model_class")
    for name in filter(None, (adapted, *(config.architectures or ()))):
        for ending, auto in _BY_ENDING.items():
            if name.endswith(ending):
                return auto
    return _BY_TASK["SEQ_2_SEQ_LM" if getattr(config, "is_encoder_decoder", False) else "CAUSAL_LM"]


def _base_of(folder: Path) -> str:
    """Read which base model an adapter belongs to; a folder with a whole model is its own."""
    config = folder / "adapter_config.json"
    if not config.is_file():
        if (folder / "config.json").is_file():
            return str(folder)
        below = folder / "adapter"
        hint = f"did you mean {str(below)!r}?" if (below / "adapter_config.json").is_file() else "give the adapter's folder"
        raise ModelLoadError(f"no folder {str(folder)!r} with an adapter_config.json", hint=hint)
    if base := base_of_adapter(folder):
        return base
    raise ModelLoadError(f"the adapter in {str(folder)!r} is damaged (adapter_config.json names no base model)")


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Let errors of what is loaded name it."""
    try:
        yield
    except (SmoLoRAError, MemoryError):
        raise
    except Exception as error:  # loading fails in many ways that share no base class
        raise ModelLoadError(f"cannot load {str(path)!r} ({first_line(error)})") from error


_HINT = f"take a whole copy, or remove {manifest.MANIFEST} if the change is meant"


def verify(folder: Path) -> None:
    """Check that every file in a folder's manifest is there as it was written; a folder without one may hold anything.

    Raises:
        CheckpointError: with a problem for each file that is not.
    """
    if not (folder / manifest.MANIFEST).is_file():
        return
    try:
        manifest.verify(folder.resolve())
    except CheckpointError as error:
        raise CheckpointError.of(attrs.evolve(each, hint=_HINT) for each in error.problems) from error
