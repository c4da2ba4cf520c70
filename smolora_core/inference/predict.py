"""Predict with a model that does not generate: labels or numbers of texts, tags of words, tokens behind masks."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from smolora_core.batches.padding import pad
from smolora_core.batches.tokens import padding_id, token_ids
from smolora_core.errors import ConfigError
from smolora_core.inference.options import check_prompt
from smolora_core.model.device import in_mode

_BATCH = 32
_CANDIDATES = 5
_WORD = re.compile(r"\S+")


@attrs.frozen
class Prediction:
    """The prediction for one text.

    Attributes:
        text: a readable form: `spam 0.98`, or the text with its masks filled.
        values: plain values: `label`, `labels` or `words`, with `scores` or `candidates`.
    """

    text: str
    values: dict[str, Any]


def predicts(model: Any) -> bool:
    """Whether a model predicts something about a text instead of generating text."""
    return _reader(model) is not None


def predict(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[Prediction]:
    """Predict for texts, a batch at a time.

    Args:
        model: a model for classification, regression, tagging or masked tokens.
        tokenizer: its tokenizer.
        texts: texts in the form of the text column in training; for masked tokens, with the mask token in them.

    Raises:
        ConfigError: the model generates text, or a text is empty or too long.
    """
    read = _reader(model)
    if read is None:
        raise ConfigError("the model generates text", hint="call generate")
    for text in texts:
        check_prompt(text)
    every = token_ids(tokenizer, texts)
    limit = min(
        getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize, tokenizer.model_max_length
    )
    made: list[Prediction] = []
    with in_mode(model, training=False), torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            rows = every[start : start + _BATCH]
            for ids in rows:
                if not 0 < len(ids) <= limit:
                    raise ConfigError(f"a text has {len(ids)} tokens, but the model takes 1 to {limit}")
            batch = pad([{"input_ids": ids} for ids in rows], padding_id(tokenizer))
            outputs = model(**{name: each.to(model.device) for name, each in batch.items()}).logits.float().cpu()
            made += [
                read(model.config, tokenizer, text, ids, output)
                for text, ids, output in zip(texts[start : start + _BATCH], rows, outputs, strict=True)
            ]
    return made


def _reader(model: Any) -> Callable[[Any, Any, str, list[int], Tensor], Prediction] | None:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = type(base).__name__
    return next((read for ending, read in _READERS.items() if name.endswith(ending)), None)


def _of_text(config: Any, tokenizer: Any, text: str, ids: list[int], logits: Tensor) -> Prediction:
    names = [config.id2label[number] for number in range(len(logits))]
    if config.problem_type == "regression" or (config.problem_type is None and len(logits) == 1):
        return _scored({}, dict(zip(names, logits.tolist(), strict=True)))
    if config.problem_type == "multi_label_classification":
        scores = dict(zip(names, logits.sigmoid().tolist(), strict=True))
        predicted = [name for name in names if scores[name] > 0.5]
        return _scored({"labels": predicted}, scores, predicted)
    scores = dict(zip(names, logits.softmax(-1).tolist(), strict=True))
    best = max(scores, key=scores.__getitem__)
    return _scored({"label": best}, scores, [best])


def _scored(values: dict[str, Any], scores: dict[str, float], shown: Sequence[str] | None = None) -> Prediction:
    text = "\n".join(f"{name} {scores[name]:.3g}" for name in (scores if shown is None else shown))
    return Prediction(text or "no label", {**values, "scores": scores})


def _of_words(config: Any, tokenizer: Any, text: str, ids: list[int], logits: Tensor) -> Prediction:
    """Label each word by its first token, as in training."""
    spans = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    words = []
    for word in _WORD.finditer(text):
        at = next(
            (at for at, (start, stop) in enumerate(spans) if stop > max(start, word.start()) and start < word.end()), None
        )
        if at is None:
            continue
        score, label = logits[at].softmax(-1).max(-1)
        words.append({"word": word.group(), "label": config.id2label[int(label)], "score": score.item()})
    return Prediction("\n".join(f"{each['word']}\t{each['label']}\t{each['score']:.3g}" for each in words), {"words": words})


def _of_masks(config: Any, tokenizer: Any, text: str, ids: list[int], logits: Tensor) -> Prediction:
    masks = [at for at, token in enumerate(ids) if token == tokenizer.mask_token_id]
    if not masks:
        mask = tokenizer.mask_token
        raise ConfigError(f"the text contains no {mask}", hint=f"write {mask} in place of the word to predict")
    filled, candidates = list(ids), []
    for at in masks:
        scores, tokens = logits[at].softmax(-1).topk(min(_CANDIDATES, logits.shape[-1]))
        filled[at] = int(tokens[0])
        pairs = zip(tokens.tolist(), scores.tolist(), strict=True)
        candidates.append([{"token": tokenizer.decode([token]).strip(), "score": score} for token, score in pairs])
    return Prediction(tokenizer.decode(filled, skip_special_tokens=True), {"candidates": candidates})


_READERS: dict[str, Callable[[Any, Any, str, list[int], Tensor], Prediction]] = {
    "ForSequenceClassification": _of_text,
    "ForTokenClassification": _of_words,
    "ForMaskedLM": _of_masks,
}
