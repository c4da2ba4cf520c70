"""Early decoders with an output projection named `out_proj`: OPT, GPT-J, GPT-Neo, CodeGen, MPT."""

from smolora_core import Targets

RECORDS = (
    Targets(
        name="opt",
        summary="attention projections of OPT, GPT-J, GPT-Neo and similar models",
        model_types=("opt", "gptj", "gpt_neo", "biogpt", "xglm"),
        modules=("q_proj", "k_proj", "v_proj", "out_proj"),
    ),
    Targets(
        name="codegen",
        summary="attention of CodeGen: fused query, key and value, and the output projection",
        model_types=("codegen",),
        modules=("qkv_proj", "out_proj"),
    ),
    Targets(
        name="mpt",
        summary="attention of MPT: fused query, key and value, and the output projection",
        model_types=("mpt",),
        modules=("Wqkv", "attn.out_proj"),
    ),
)
