"""Load an adapter folder, and let it continue prompts, answer them, or say what it has learned of them."""

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
from smolora_core.model.device import pick_device

_BATCH = 32


@attrs.frozen
class LoadedAdapter:
    """A base model with a trained adapter, ready to write, or to predict.

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
        """Continue one prompt; options as in `smolora_core.inference.generate.generate`."""
        check_prompt(prompt)
        return self.generate_all([prompt], **options)[0]

    def generate_all(self, prompts: Sequence[str], **options: Any) -> list[str]:
        """Continue several prompts, a batch at a time; options as in `smolora_core.inference.generate.generate`.

        Of a model that does not write, the options have no use, and the texts are those of `predict`.
        """
        if self.predicts:
            return [each.text for each in self.predict(prompts)]
        return generate(self.model, self.tokenizer, prompts, **options)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Say what was learned of texts, as `smolora_core.inference.predict.predict` does."""
        return predict(self.model, self.tokenizer, texts)


def load_adapter(folder: Path, device: str = "auto", dtype: str = "auto") -> LoadedAdapter:
    """Load a PEFT folder, or a folder with a whole model, and its tokenizer.

    Args:
        folder: what a run wrote to `adapter/`.
        device: `auto`, `cpu`, `cuda` or `mps`.
        dtype: a dtype's name; auto is what the base model is stored in.

    Raises:
        ConfigError: there is no such device.
        ModelLoadError: it is no such folder, it is damaged, or its base model is gone.
        CheckpointError: a file is not what its manifest says.
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
) -> list[str]:
    """Continue prompts, or answer them.

    Args:
        model: a causal model, or an encoder-decoder.
        tokenizer: its tokenizer.
        prompts: texts, as they stood before the completion in training.
        max_new_tokens: tokens at most.
        temperature: 0 always takes the likeliest token.
        top_p: share of probability to sample from.
        seed: makes sampling repeatable.

    Returns:
        The continuations without the prompts and without special tokens.

    Raises:
        ConfigError: an option or a prompt cannot be used.
    """
    check_options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    if isinstance(prompts, str):
        raise ConfigError("prompts must be a list of texts, is one text", hint="put it into a list")
    for prompt in prompts:
        check_prompt(prompt)
    if temperature > 0:
        # Transformers would leave out all but 50 tokens.
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    else:
        # Its own defaults, so that it does not warn of a model's sampling settings.
        sampling = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    ends, fill = _ends(model, tokenizer), padding_id(tokenizer)
    answers = bool(getattr(model.config, "is_encoder_decoder", False))
    options = {"use_cache": True, "pad_token_id": fill, "eos_token_id": ends or None, **sampling}
    devices = [model.device] if model.device.type == "cuda" else []
    was_training = model.training
    texts: list[str] = []
    model.eval()
    try:
        with torch.random.fork_rng(devices, enabled=seed is not None), torch.inference_mode():
            if seed is not None:
                torch.manual_seed(seed)
            for start in range(0, len(prompts), _BATCH):
                rows = tokenizer(list(prompts[start : start + _BATCH]))["input_ids"]
                batch = _padded([ids if answers else _open_ended(ids, tokenizer) for ids in rows], fill, model.device)
                width = batch["input_ids"].shape[1]
                made = model.generate(**batch, max_new_tokens=min(max_new_tokens, _room(model, width)), **options)
                # An answer has a token of its own that it begins with.
                new = made[:, 1 if answers else width :].tolist()
                texts += [tokenizer.decode(_until(row, ends), skip_special_tokens=True) for row in new]
    finally:
        model.train(was_training)
    return texts


def _open_ended(ids: list[int], tokenizer: Any) -> list[int]:
    """Leave out an end-of-sequence token that the tokenizer added: the prompt goes on. An empty one goes on from the start."""
    ids = ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
    first = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
    return ids or [next(token for token in first if token is not None)]


def _padded(rows: Sequence[list[int]], fill: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Fill rows up on the left, so that all of them go on from the last column."""
    width = max(map(len, rows))
    ids = [[fill] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _room(model: Any, width: int) -> int:
    """Count the tokens that a model has positions for after a prompt; for an answer they begin anew."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    if getattr(model.config, "is_encoder_decoder", False) and width <= limit:
        return int(limit - 1)
    if width >= limit:
        raise ConfigError(f"a prompt has {width} tokens, and the model has positions for {limit}", hint="shorten it")
    return int(limit - width)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """List what ends a text: what the model's authors say, and what training has put at the end."""
    said = model.generation_config.eos_token_id
    return sorted({*(said if isinstance(said, list) else [said]), tokenizer.eos_token_id} - {None})


def _until(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Cut off what follows the end: a shorter text of a batch is filled up."""
    return ids[: next((index for index, token in enumerate(ids) if token in ends), len(ids))]
