"""Writing with an encoder and a decoder: the encoder reads the prompt, the decoder learns the completion."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from smolora_core import ConfigError, Drop, Encoded, TaskSetup
from smolora_core.batches import IGNORED, pad, token_ids
from smolora_core.data import Example
from smolora_plugins.tasks.measures import observe_tokens, token_measures
from smolora_plugins.tasks.texts import cut_ids

_NOTHING = Drop("there is no token to write")
_NO_PROMPT = Drop("the prompt is empty")


class Seq2SeqLM:
    """Encodes and collates for a model that reads one text and writes another."""

    def __init__(self) -> None:
        self._start = 0

    def encode(self, examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Encoded | Drop]:
        """Tokenise prompts and completions in one call each; both are cut where they are too long."""
        end: int | None = tokenizer.eos_token_id
        prompts = cut_ids(tokenizer, [example.prompt or "" for example in examples], max_length)
        return [
            _encoded(ids, lost, labels, end, max_length)
            for (ids, lost), labels in zip(prompts, token_ids(tokenizer, [each.text for each in examples]), strict=True)
        ]

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Look up what a decoder begins with.

        Raises:
            ConfigError: the model's config does not say.
        """
        start = getattr(setup.model_config, "decoder_start_token_id", None)
        if start is None:
            raise ConfigError("the model's config.json names no decoder_start_token_id", hint="is it an encoder-decoder?")
        self._start = int(start)
        return {}

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> dict[str, Tensor]:
        """Pad on the right: prompts `[B, S]`; `labels` `[B, T]`, and the decoder's input, which is one token behind them."""
        batch = pad(rows, pad_token_id)
        behind = batch["labels"].roll(1, dims=1).masked_fill(batch["labels"].roll(1, dims=1) == IGNORED, pad_token_id)
        behind[:, 0] = self._start
        return {**batch, "decoder_input_ids": behind}

    def observe(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Keep what perplexity and accuracy are made of."""
        return observe_tokens(outputs, targets)

    def metrics(self, observed: Tensor, rows: Tensor) -> dict[str, float]:
        """Perplexity and accuracy of the tokens of completions."""
        return token_measures(observed)


def _encoded(ids: list[int], lost: int, labels: list[int], end: int | None, max_length: int) -> Encoded | Drop:
    whole = labels if end is None or labels[-1:] == [end] else [*labels, end]
    if not ids or not whole:
        return _NOTHING if ids else _NO_PROMPT
    kept = whole[:max_length]
    return Encoded(
        ({"input_ids": ids, "labels": kept},), len(kept), lost + len(whole) - len(kept), int(end is None or kept[-1] != end)
    )
