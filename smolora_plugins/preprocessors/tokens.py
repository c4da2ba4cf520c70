"""Tokenisation of a column, for steps that measure or split texts."""

from typing import Any

from smolora_core import DatasetError
from smolora_core.data import text_problem


def tokenized(text: str, field: str, tokenizer: Any, **options: Any) -> Any:
    """Tokenise the text of a column without special tokens.

    Raises:
        DatasetError: the text contains a lone surrogate, which no tokenizer accepts.
    """
    if problem := text_problem(field, text, ""):
        raise DatasetError(problem.what)
    return tokenizer(text, add_special_tokens=False, verbose=False, **options)
