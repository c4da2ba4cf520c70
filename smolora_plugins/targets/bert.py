"""BERT and the encoders that share its module names."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="bert",
        summary="attention of BERT, RoBERTa, ELECTRA and similar models",
        model_types=(
            *("bert", "roberta", "xlm-roberta", "camembert", "electra", "xlm-roberta-xl", "roberta-prelayernorm"),
            *("data2vec-text", "ernie", "layoutlm", "megatron-bert", "mobilebert", "rembert", "roformer", "convbert"),
            *("nystromformer", "big_bird", "esm", "longformer"),
        ),
        modules=("query", "key", "value", "attention.output.dense"),
    ),
    Targets(
        name="albert",
        summary="attention of ALBERT, whose layers share one block",
        model_types=("albert",),
        modules=("query", "key", "value", "attention.dense"),
    ),
)
