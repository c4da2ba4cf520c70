"""Llama and the many models that share its attention: separate query, key, value and output projections."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="llama",
        summary="attention projections of Llama and similar models",
        model_types=(
            *("llama", "mistral", "ministral", "ministral3", "qwen2", "qwen3", "smollm3", "olmo", "olmo2", "olmo3"),
            *("granite", "granite_swa", "starcoder2", "stablelm", "cohere", "cohere2", "exaone4", "ernie4_5", "glm", "glm4"),
            *("nemotron", "helium", "arcee", "apertus", "seed_oss", "hunyuan_v1_dense", "jais2", "diffllama", "bitnet"),
            *("hyperclovax", "internlm3", "nanochat", "eurobert"),
        ),
        modules=("q_proj", "k_proj", "v_proj", "o_proj"),
    ),
)
