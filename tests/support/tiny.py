"""Tiny models of every architecture that a built-in record speaks for, random but for their config."""

from typing import Any

import torch
import transformers

_SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_decoder_attention_heads", "attention_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"), 64
    ),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "rotary_dim", "v_head_dim"), 8),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28}
_LINEAR: dict[str, Any] = {
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "head_dim"), 8),
    "layer_types": ["linear_attention", "full_attention"],
}
# What a model needs beyond the usual sizes; None is a size that it does not take.
_OWN: dict[str, dict[str, Any]] = {
    "big_bird": {"attention_type": "original_full"},
    "blenderbot-small": {"max_position_embeddings": 64},
    "esm": {"vocab_size": 64, "mask_token_id": 3},
    "falcon": {"head_dim": None},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8},
    "funnel": {"num_hidden_layers": None, "block_sizes": [1, 1], "num_decoder_layers": 1, "d_inner": 64},
    "gemma3": {
        "text_config": {**_TEXT, "num_key_value_heads": 2, "head_dim": 8},
        "vision_config": {**_VISION, "patch_size": 14},
        "mm_tokens_per_image": 4,
    },
    "gemma4_text": {"head_dim": None, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 64, "global_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "longformer": {"attention_window": [4, 4]},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "prophetnet": {"num_hidden_layers": None, "ngram": 2},
    "qwen3_5": {"text_config": {**_TEXT, **_LINEAR}, "vision_config": {"hidden_size": 32, "depth": 1, "out_hidden_size": 32}},
    "qwen3_5_text": _LINEAR,
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "t5gemma": {side: {**_TEXT, "num_key_value_heads": 2, "head_dim": 8} for side in ("encoder", "decoder")},
    "udop": {"relative_bias_args": [{"type": "1d"}]},
}
_AUTO = ("AutoModelForSeq2SeqLM", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForImageTextToText", "AutoModel")
_ENCODERS = ("AutoModelForMaskedLM", *_AUTO)


def tiny(model_type: str, *, encoder: bool = False) -> Any:
    """Make a tiny random model of an architecture, with the head of the task it is trained for."""
    kind = transformers.CONFIG_MAPPING[model_type]
    default, own = kind(), _OWN.get(model_type, {})
    sizes = {name: size for name, size in _SIZES.items() if name not in own and hasattr(default, name)}
    config = kind(**sizes, **{name: value for name, value in own.items() if value is not None})
    mappings = (getattr(transformers, name) for name in (_ENCODERS if encoder else _AUTO))
    auto = next(auto for auto in mappings if type(config) in auto._model_mapping)
    torch.manual_seed(0)
    return auto.from_config(config).float()


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Make a batch for a model; heads of some encoder-decoders stand on the end of a text."""
    ids = torch.arange(3, 19).reshape(2, 8)
    ids[:, -1] = _SIZES["eos_token_id"]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**batch, "decoder_input_ids": ids.flip(1)} if model.config.is_encoder_decoder else batch
