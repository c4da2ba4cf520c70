"""Tiny real models and tokenizers, made on the spot."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = [
    "the",
    "film",
    "was",
    "good",
    "bad",
    "long",
    "short",
    "and",
    "we",
    "liked",
    "it",
    "not",
    "at",
    "all",
    "a",
    "cat",
    "sat",
    "on",
    "mat",
    "who",
    "what",
    "why",
]


def save_tokenizer(folder: Path, *, pad: bool = False, eos: bool = True) -> Any:
    """Train a byte-level BPE tokenizer on a few words and save it."""
    specials = ["<s>", "</s>", "<pad>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    names = {"bos_token": "<s>", **({"eos_token": "</s>"} if eos else {}), **({"pad_token": "<pad>"} if pad else {})}
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    wrapped.save_pretrained(folder)
    return wrapped


def save_llama(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Save a random Llama of two layers with its tokenizer."""
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(seed)
    config = {
        "vocab_size": len(tokenizer) + 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **changes,
    }
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, seed: int = 0) -> Path:
    """Save a random GPT-2 of two layers, whose linear layers are Conv1D, with its tokenizer."""
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def save_wordpiece(folder: Path) -> Any:
    """Save BERT's kind of tokenizer, which knows a few words and spells others in letters."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    vocabulary = [*specials, *WORDS, *(each for each in letters if each not in WORDS), *(f"##{each}" for each in letters)]
    wrapped = transformers.BertTokenizer(vocab={token: at for at, token in enumerate(vocabulary)})
    wrapped.save_pretrained(folder)
    return wrapped


_TINY: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "bert": (
        transformers.BertConfig,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
    ),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "dropout": 0.0, "attention_dropout": 0.0},
    ),
}


def save_encoder(folder: Path, kind: str = "bert", head: str = "ForMaskedLM", seed: int = 0) -> Path:
    """Save a random encoder of two layers that drops nothing out: `bert` or `distilbert`, with a head or without (`Model`)."""
    tokenizer = save_wordpiece(folder)
    torch.manual_seed(seed)
    config_class, shape = _TINY[kind]
    config = config_class(
        vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=0, seq_classif_dropout=0.0, **shape
    )
    name = config_class.__name__.removesuffix("Config") + head
    getattr(transformers, name)(config).save_pretrained(folder)
    return folder


def save_t5(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Save a random T5 of two layers on each side with a byte-level tokenizer."""
    tokenizer = save_tokenizer(folder, pad=True)
    torch.manual_seed(seed)
    config = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0, **changes}
    special = {"vocab_size": len(tokenizer), "pad_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 2}
    transformers.T5ForConditionalGeneration(transformers.T5Config(**special, **config)).save_pretrained(folder)
    return folder
