"""Texts as tokens."""

from typing import Any

from smolora_core import DatasetError
from smolora_core.data import text_problem


def tokenized(text: str, field: str, tokenizer: Any, **how: Any) -> Any:
    """Tokenise the text of a column without the tokens that frame a sequence.

    Raises:
        DatasetError: the text holds half of a character, which no tokenizer takes.
    """
    if problem := text_problem(field, text, ""):
        raise DatasetError(problem.what)
    return tokenizer(text, add_special_tokens=False, verbose=False, **how)
