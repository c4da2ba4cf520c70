"""SmoLoRA: LoRA fine-tuning of small language models, where every decision is a plugin you can replace.

In three lines:

    from smolora_core import SmoLoRA

    lora = SmoLoRA("./models/tiny", "reviews.jsonl", output_dir="runs/reviews")
    lora.train()
    print(lora.generate("The film was"))

A custom loss is a formula and a custom preprocessor a function; pass them in, keep them in a file, or ship them as a package:

    import torch.nn.functional as F

    def focal(logits, targets):  # logits [n, V], targets [n] -> [n]
        nll = F.cross_entropy(logits, targets, reduction="none")
        return (1 - (-nll).exp()) ** 2 * nll

    SmoLoRA("./models/tiny", "reviews.jsonl", loss=focal).train()

Importing this package does not import torch, because public names are loaded on first use. They are listed in `__init__.pyi`.
"""

import ast
import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


def public_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package that loads its public names on first use.

    Type checkers and this function find the names in the stub next to `file`, which imports each from its home module.
    """

    @cache
    def homes() -> dict[str, str]:
        stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
        imports = (node for node in stub.body if isinstance(node, ast.ImportFrom))
        return {alias.name: node.module or "" for node in imports for alias in node.names}

    def load(name: str) -> Any:
        if name == "__all__":
            return sorted(homes())
        if name.startswith("__") or name not in homes():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes()[name]), name)

    return load, lambda: sorted(homes())


_load, __dir__ = public_names(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("smolora")
    return _load(name)
