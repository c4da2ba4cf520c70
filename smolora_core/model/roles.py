"""What a layer is for, told from its name, and where names say nothing from its shape."""

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
    """Whether a module's name is one that models give to their output head or to a table of embeddings."""
    return bool(_HEAD.search(module) or _EMBEDDING.search(module))


def left_alone(module: str, known: Collection[str]) -> str | None:
    """Say why a layer is not adapted unless the user names it; None for one that is.

    Args:
        module: its full name.
        known: the full names of all layers, which tell a mixture's gate from a gated layer's.
    """
    if _ROUTER.search(module) and f"{module.rpartition('.')[0]}.up" not in known:
        return "router"
    if is_head_or_embedding(module):
        return "embedding" if _EMBEDDING.search(module) else "head"
    if _TOWER.search(module):
        return "vision or audio part"
    if _EXPERT.search(module):
        return "expert of a mixture"
    return None if _BLOCK.search(module) else "outside the blocks"


def end_of(module: str) -> str:
    """What follows the number of a layer's block, the same in every block: `self_attn.q_proj`."""
    return _BLOCK.split(module)[-1]


def attention_of(modules: Iterable[str], shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Pick the attention's projections, fused ones included, out of the layers in the blocks.

    Args:
        modules: full names.
        shapes: of their weights, as far as known; they count where no name speaks of attention.
    """
    groups: dict[str, list[str]] = {}
    for module in modules:
        groups.setdefault(module.rpartition(".")[0], []).append(module)
    named = [module for group in groups.values() for module in _by_name(group)]
    alike = (group for group in groups.values() if _is_attention([shapes.get(module, ()) for module in group]))
    return tuple(named or (module for group in alike for module in group))


def _by_name(group: list[str]) -> list[str]:
    leaves = [module.rpartition(".")[-1] for module in group]
    asks = any(map(_QUERY.fullmatch, leaves))
    return [
        module
        for module, leaf in zip(group, leaves, strict=True)
        if _ATTENTION.search(module) or _QUERY.fullmatch(leaf) or (asks and _OUTPUT.fullmatch(leaf))
    ]


def _is_attention(shapes: list[Shape]) -> bool:
    """Whether layers side by side are fused query, key and value with an output, or the four of them, keys perhaps narrower."""
    square = next((shape[0] for shape in shapes if len(shape) == 2 and shape[0] == shape[1]), None)
    if square is None:
        return False
    fused = any(sorted(shape) == [square, 3 * square] for shape in shapes)
    four = len(shapes) == 4 and shapes.count((square, square)) >= 2 and all(max(shape, default=0) == square for shape in shapes)
    return (fused and len(shapes) == 2) or four
