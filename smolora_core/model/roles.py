"""The role of a layer in a model, recognised by its name or, where the name does not help, by its shape."""

import re
from collections.abc import Collection, Iterable, Mapping

Shape = tuple[int, ...]

_HEAD = re.compile(
    r"(^|\.)(\w*lm_head|embed_out|score|(\w+_)?classifier|classification_head|qa_outputs|cls|(\w+_)?predictions"
    r"|vocab_(transform|projector)|output_projection|lm_loss|logits_proj|pred_layer)(\.|$)|^(decoder$|head(\.|$))"
)
_EMBEDDING = re.compile(r"(^|\.)(shared|wte|wpe|\w*relative_attention_bias|\w*embed(s|ding|dings|_\w+)?)$")
_ROUTER = re.compile(r"(^|\.)(\w*router|gating|\w*expert_gate|gate)(\.|$)")
_EXPERT = re.compile(r"(^|\.)experts(\.|$)")
_TOWER = re.compile(r"(^|\.)(vision|visual|audio|image|speech)(_\w+)?\.")
_BLOCK = re.compile(r"(?:^|\.)\d+(?:\.\d+)*\.")
_ATTENTION = re.compile(r"attn|attention", re.I)
_QUERY = re.compile(r"w?_?(q|k|v|qkv|query|key|value|query_key_value)(_(proj|lin|head))?|c_attn", re.I)
_OUTPUT = re.compile(r"w?_?(o|out|output)(_(proj|lin))?", re.I)


def is_head_or_embedding(module: str) -> bool:
    """Whether a module has a name that models use for an output head or an embedding table."""
    return bool(_HEAD.search(module) or _EMBEDDING.search(module))


def skip_reason(module: str, layers: Collection[str]) -> str | None:
    """Explain why a layer is only adapted when the user names it; None for a layer that is adapted by default.

    The full names in `layers` tell a mixture's router from the gate of a gated MLP.
    """
    if _ROUTER.search(module) and f"{module.rpartition('.')[0]}.up" not in layers:
        return "router"
    if is_head_or_embedding(module):
        return "embedding" if _EMBEDDING.search(module) else "head"
    if _TOWER.search(module):
        return "vision or audio part"
    if _EXPERT.search(module):
        return "expert of a mixture"
    return None if _BLOCK.search(module) else "outside the blocks"


def name_in_block(module: str) -> str:
    """Strip everything up to the block's number: `self_attn.q_proj`, the same in every block."""
    return _BLOCK.split(module)[-1]


def attention_modules(modules: Iterable[str], shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Pick the attention projections, fused ones included, from the layers in the blocks.

    Shapes decide only where no name is recognised; missing ones are allowed.
    """
    groups: dict[str, list[str]] = {}
    for module in modules:
        groups.setdefault(module.rpartition(".")[0], []).append(module)
    by_name = [module for group in groups.values() for module in _named_like_attention(group)]
    by_shape = (group for group in groups.values() if _shaped_like_attention([shapes.get(module, ()) for module in group]))
    return tuple(by_name or (module for group in by_shape for module in group))


def _named_like_attention(group: list[str]) -> list[str]:
    leaves = [module.rpartition(".")[-1] for module in group]
    has_query = any(map(_QUERY.fullmatch, leaves))
    return [
        module
        for module, leaf in zip(group, leaves, strict=True)
        if _ATTENTION.search(module) or _QUERY.fullmatch(leaf) or (has_query and _OUTPUT.fullmatch(leaf))
    ]


def _shaped_like_attention(shapes: list[Shape]) -> bool:
    """Whether sibling layers are a fused QKV and an output, or Q, K, V and an output with K and V possibly narrower."""
    square = next((shape[0] for shape in shapes if len(shape) == 2 and shape[0] == shape[1]), None)
    if square is None:
        return False
    fused = len(shapes) == 2 and any(sorted(shape) == [square, 3 * square] for shape in shapes)
    four = len(shapes) == 4 and shapes.count((square, square)) >= 2 and all(max(shape, default=0) == square for shape in shapes)
    return fused or four
