"""Tiny models of many families, and what every way of computing them must agree with."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from tests.support.small_run import VOCABULARY, adapted, full_logits

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
_HEADS = {"head_dim": 8}
_OLD = {"vocab_size": VOCABULARY, "attention_dropout": 0.0, "hidden_dropout": 0.0}

CONFIGS: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**_SHAPE),
    "mistral": lambda: transformers.MistralConfig(**_SHAPE, sliding_window=6),
    "qwen2": lambda: transformers.Qwen2Config(**_SHAPE),
    "qwen3": lambda: transformers.Qwen3Config(**_SHAPE, **_HEADS),
    "gemma3": lambda: transformers.Gemma3TextConfig(**_SHAPE, **_HEADS, sliding_window=6, query_pre_attn_scalar=8),
    "smollm3": lambda: transformers.SmolLM3Config(**_SHAPE, no_rope_layer_interval=2),
    "phi3": lambda: transformers.Phi3Config(**_SHAPE),
    "olmo2": lambda: transformers.Olmo2Config(**_SHAPE),
    "granite": lambda: transformers.GraniteConfig(**_SHAPE, attention_multiplier=0.3, logits_scaling=2.0),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    ),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        dropout=0.0,
    ),
    "bloom": lambda: transformers.BloomConfig(**_OLD, hidden_size=32, n_layer=2, n_head=4),
    "mamba": lambda: transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=4),
}
HONOURED = [family for family in CONFIGS if family not in ("bloom", "mamba")]
"""The families whose models keep rows apart without padding."""
_TARGETS = {
    "phi3": ["qkv_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "bloom": ["query_key_value"],
    "opt": ["q_proj", "v_proj"],
    "mamba": ["in_proj"],
}


def make(family: str, dtype: torch.dtype = torch.float32, **lora: Any) -> Any:
    """Make a random model with an adapter that is not zero, in training mode, which drops nothing out."""
    torch.manual_seed(5)
    base = transformers.AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation=None)
    for name, parameter in base.named_parameters():
        if parameter.dim() == 1 and "norm" in name:
            torch.nn.init.normal_(parameter, mean=0.0 if family == "gemma3" else 1.0, std=0.2)
    targets = _TARGETS.get(family, ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"])
    return adapted(base.to(dtype), target_modules=targets, **lora).train()


def expected(model: Any, of: Sequence[dict[str, Any]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Compute the mean loss and its gradient from all logits, in double precision."""
    total, weight, gradient = full_logits(model, of)
    return total / weight, {name: each / weight for name, each in gradient.items()}
