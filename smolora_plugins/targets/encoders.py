"""Encoders with their own module names."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="distilbert",
        summary="attention of DistilBERT and XLM",
        model_types=("distilbert", "xlm", "flaubert"),
        modules=("q_lin", "k_lin", "v_lin", "out_lin"),
    ),
    Targets(
        name="deberta",
        summary="attention of DeBERTa: fused query, key and value, and the output projection",
        model_types=("deberta",),
        modules=("in_proj", "attention.output.dense"),
    ),
    Targets(
        name="deberta-v2",
        summary="attention of DeBERTa v2 and v3",
        model_types=("deberta-v2",),
        modules=("query_proj", "key_proj", "value_proj", "attention.output.dense"),
    ),
    Targets(
        name="modernbert",
        summary="attention of ModernBERT: fused query, key and value, and the output projection",
        model_types=("modernbert",),
        modules=("Wqkv", "attn.Wo"),
    ),
    Targets(
        name="modernbert-decoder",
        summary="attention of ModernBERT's decoder",
        model_types=("modernbert-decoder",),
        modules=("q_proj", "k_proj", "v_proj", "attn.Wo"),
    ),
    Targets(
        name="mpnet",
        summary="attention of MPNet",
        model_types=("mpnet",),
        modules=("attn.q", "attn.k", "attn.v", "attn.o"),
    ),
    Targets(
        name="funnel",
        summary="attention of the Funnel Transformer",
        model_types=("funnel",),
        modules=("q_head", "k_head", "v_head", "post_proj"),
    ),
)
