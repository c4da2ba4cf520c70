"""Load an adapter folder and let it continue prompts."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import transformers
from peft import PeftModel

from smolora_core.errors import ModelLoadError
from smolora_core.model.device import pick_device

__all__ = ["LoadedAdapter", "generate", "load_adapter"]

_BATCH = 32


@attrs.frozen
class LoadedAdapter:
    """A base model with a trained adapter, ready to generate.

    Example:
        load("runs/reviews/adapter").generate("The film was")
    """

    model: Any
    tokenizer: Any

    def generate(self, prompt: str, **options: Any) -> str:
        """Continue one prompt; options as in `smolora_core.inference.generate.generate`."""
        return generate(self.model, self.tokenizer, [prompt], **options)[0]


def load_adapter(folder: Path, device: str = "auto", dtype: str = "auto") -> LoadedAdapter:
    """Load a PEFT folder, or a folder with a whole model, and its tokenizer.

    Args:
        folder: what a run wrote to `adapter/`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: a dtype's name; auto is what the base model is stored in.

    Raises:
        ModelLoadError: it is no such folder, or its base model is gone.
    """
    config = folder / "adapter_config.json"
    if not config.is_file() and not (folder / "config.json").is_file():
        below = folder / "adapter"
        hint = f"did you mean {str(below)!r}?" if (below / "adapter_config.json").is_file() else "give the adapter's folder"
        raise ModelLoadError(f"no folder {str(folder)!r} with an adapter_config.json", hint=hint)
    base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] if config.is_file() else str(folder)
    try:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        if config.is_file():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = PeftModel.from_pretrained(model, folder)
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot load the base model {base!r} of {str(folder)!r} ({error})") from error
    return LoadedAdapter(model.to(pick_device(device)).eval(), tokenizer)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
) -> list[str]:
    """Continue prompts.

    Args:
        model: a causal model.
        tokenizer: its tokenizer.
        prompts: texts, as they stood before the completion in training.
        max_new_tokens: tokens at most.
        temperature: 0 always takes the likeliest token.
        top_p: share of probability to sample from.
        seed: makes sampling repeatable.

    Returns:
        The continuations without the prompts and without special tokens.
    """
    if seed is not None:
        torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {"do_sample": False}
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    was_training = model.training
    model.eval()
    texts: list[str] = []
    try:
        for start in range(0, len(prompts), _BATCH):
            batch = [_open_ended(ids, tokenizer) for ids in tokenizer(list(prompts[start : start + _BATCH]))["input_ids"]]
            inputs = tokenizer.pad({"input_ids": batch}, padding_side="left", return_tensors="pt").to(model.device)
            with torch.inference_mode():
                ids = model.generate(
                    **inputs, max_new_tokens=max_new_tokens, use_cache=True, pad_token_id=tokenizer.pad_token_id, **sampling
                )
            texts += tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    finally:
        model.train(was_training)
    return texts


def _open_ended(ids: list[int], tokenizer: Any) -> list[int]:
    """Leave out an end-of-sequence token that the tokenizer added: the prompt goes on."""
    ids = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    return ids or [tokenizer.bos_token_id or tokenizer.eos_token_id or 0]
