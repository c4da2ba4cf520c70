"""Sequence-to-sequence modelling: the encoder reads the prompt, the decoder learns the completion."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from smolora_core import ConfigError, Drop, Encoded, TaskSetup
from smolora_core.batches import IGNORED, pad, token_ids
from smolora_core.data import Example
from smolora_plugins.tasks.metrics import observe_tokens, token_metrics
from smolora_plugins.tasks.texts import truncated_ids

_NO_TOKENS = Drop("no tokens to generate")
_NO_PROMPT = Drop("the prompt is empty")


class Seq2SeqLM:
    """Encode and collate for an encoder-decoder."""

    def __init__(self) -> None:
        self._start = 0

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise prompts and completions in one call each; long ones are truncated."""
        eos: int | None = tokenizer.eos_token_id
        prompts = truncated_ids(tokenizer, [example.prompt or "" for example in examples], max_length)
        completions = token_ids(tokenizer, [example.text for example in examples])
        return [_encode(ids, lost, labels, eos, max_length) for (ids, lost), labels in zip(prompts, completions, strict=True)]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Look up the decoder's start token.

        Raises:
            ConfigError: the model's config has none.
        """
        start = getattr(setup.model_config, "decoder_start_token_id", None)
        if start is None:
            raise ConfigError("the model's config.json has no decoder_start_token_id", hint="is this an encoder-decoder?")
        self._start = int(start)
        return {}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad on the right: prompts `[B, S]`, `labels` `[B, T]`, and the decoder's input, the labels shifted by one."""
        batch = pad(rows, pad_token_id)
        shifted = batch["labels"].roll(1, dims=1)
        shifted = shifted.masked_fill(shifted == IGNORED, pad_token_id)
        shifted[:, 0] = self._start
        return {**batch, "decoder_input_ids": shifted}

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep each token's loss and whether it was predicted: `[n, 2]`."""
        return observe_tokens(outputs, targets)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Compute perplexity and accuracy over completion tokens."""
        return token_metrics(observed)


def _encode(ids: list[int], lost: int, labels: list[int], eos: int | None, max_length: int) -> Encoded | Drop:
    full = labels if eos is None or labels[-1:] == [eos] else [*labels, eos]
    if not ids or not full:
        return _NO_TOKENS if ids else _NO_PROMPT
    kept = full[:max_length]
    is_open = eos is None or kept[-1] != eos
    return Encoded(({"input_ids": ids, "labels": kept},), len(kept), lost + len(full) - len(kept), int(is_open))
