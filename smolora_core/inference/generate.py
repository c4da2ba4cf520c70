"""Load a trained adapter, and generate or predict with it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from smolora_core.batches.tokens import padding_id
from smolora_core.errors import ConfigError
from smolora_core.inference.loading import load_folder
from smolora_core.inference.options import check_device, check_options, check_prompt
from smolora_core.inference.predict import Prediction, predict, predicts
from smolora_core.model.device import in_mode, pick_device

_BATCH = 32


@attrs.frozen
class LoadedAdapter:
    """A base model with a trained adapter, ready to generate or to predict.

    Attributes:
        model: the `PeftModel`, or a whole model, in evaluation mode.
        tokenizer: its tokenizer.

    Example:
        load("runs/reviews/adapter").generate("The film was")
    """

    model: Any
    tokenizer: Any

    @property
    def predicts(self) -> bool:
        """Whether the model predicts labels, numbers or masked tokens of a text, instead of continuing it."""
        return predicts(self.model)

    def generate(self, prompt: str, **options: Any) -> str:
        """Continue one prompt; options are those of `smolora_core.inference.generate.generate`."""
        check_prompt(prompt)
        return self.generate_all([prompt], **options)[0]

    def generate_all(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """Continue several prompts in batches; options are those of `smolora_core.inference.generate.generate`.

        For a model that predicts, the options are ignored and the result is the texts of `predict`.
        """
        if self.predicts:
            return [each.text for each in self.predict(prompts)]
        return generate(self.model, self.tokenizer, prompts, **options)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Predict labels, numbers, tags or masked tokens of texts, as `smolora_core.inference.predict.predict` does."""
        return predict(self.model, self.tokenizer, texts)


def load_adapter(folder: Path, device: str = "auto", dtype: str = "auto") -> LoadedAdapter:
    """Load an adapter with its base model, or a whole model, and the tokenizer.

    Args:
        folder: a PEFT folder, such as a run's `adapter/`, or a transformers folder.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: the name of a torch dtype; auto is the format that the base model is stored in.

    Raises:
        ConfigError: there is no such device.
        ModelLoadError: the folder contains neither, is damaged, or its base model is missing.
        CheckpointError: a file does not match its manifest.
    """
    check_device(device)
    model, tokenizer = load_folder(folder, dtype)
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
    special_tokens: bool = True,
) -> list[str]:
    """Continue prompts with a decoder, or answer them with an encoder-decoder.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        prompts: texts in the form that preceded completions in training.
        max_new_tokens: the most tokens to generate for a prompt.
        temperature: 0 always takes the most likely token.
        top_p: the share of probability to sample from.
        seed: makes sampling repeatable.
        special_tokens: whether the tokenizer adds its own, such as a start token; a chat template has already written them.

    Returns:
        The generated texts without prompts and special tokens.

    Raises:
        ConfigError: an option is out of range, or a prompt is not text or too long.
    """
    check_options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if isinstance(prompts, str):
        raise ConfigError("prompts must be a list of texts, got a single text", hint="put it into a list")
    for prompt in prompts:
        check_prompt(prompt)
    if temperature > 0:
        # transformers keeps only the 50 most likely tokens by default.
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    else:
        # The defaults of transformers, which otherwise warns about the model's own sampling settings.
        sampling = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    ends, fill = _ends(model, tokenizer), padding_id(tokenizer)
    answers = bool(getattr(model.config, "is_encoder_decoder", False))
    options = {"use_cache": True, "pad_token_id": fill, "eos_token_id": ends or None, **sampling}
    devices = [model.device] if model.device.type == "cuda" else []
    texts: list[str] = []
    with (
        in_mode(model, training=False),
        torch.random.fork_rng(devices, enabled=seed is not None),
        torch.inference_mode(),
    ):
        if seed is not None:
            torch.manual_seed(seed)
        for start in range(0, len(prompts), _BATCH):
            rows = tokenizer(list(prompts[start : start + _BATCH]), add_special_tokens=special_tokens)["input_ids"]
            batch = _padded([ids if answers else _open_ended(ids, tokenizer) for ids in rows], fill, model.device)
            width = batch["input_ids"].shape[1]
            made = model.generate(**batch, max_new_tokens=min(max_new_tokens, _room(model, width)), **options)
            # An answer begins with the decoder's start token.
            new = made[:, 1 if answers else width :].tolist()
            texts += [tokenizer.decode(_until(row, ends), skip_special_tokens=True) for row in new]
    return texts


def _open_ended(ids: list[int], tokenizer: Any) -> list[int]:
    """Remove an end-of-sequence token that the tokenizer added, for the prompt continues; an empty prompt is a start token."""
    ids = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    first = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return ids or [next(token for token in first if token is not None)]


def _padded(rows: Sequence[list[int]], fill: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Pad rows on the left, so that all of them continue from the last column."""
    width = max(map(len, rows))
    ids = [[fill] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _room(model: Any, width: int) -> int:
    """Count the positions that a model has left after a prompt; an encoder-decoder has all of them for its answer."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    if getattr(model.config, "is_encoder_decoder", False) and width <= limit:
        return int(limit - 1)
    if width >= limit:
        raise ConfigError(f"a prompt has {width} tokens, but the model only has {limit} positions", hint="shorten it")
    return int(limit - width)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """List the tokens that end a text: those of the generation config, and the one that training appends."""
    configured = model.generation_config.eos_token_id
    return sorted({*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id} - {None})


def _until(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Cut a text at its end token; what follows is the padding of a batch."""
    return ids[: next((index for index, token in enumerate(ids) if token in ends), len(ids))]
