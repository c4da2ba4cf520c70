"""What a row is to a task: what is trained, and what comes before it."""

import json
from hashlib import blake2b
from typing import Any

import attrs

from smolora_core.data.formats.conversation import Conversation

_spell = json.JSONEncoder(default=str).encode


@attrs.frozen
class Example:
    """One row as the task sees it.

    Attributes:
        text: what is trained; empty where there is only a conversation.
        prompt: what comes before it and is not trained; None where a row is text only.
        columns: values of the further columns that the loss asked for.
        conversation: the row as turns. An instruction has both: turns for a tokenizer with a chat template, and prompt and
            text for one without.
        labels: values of the label columns, in their order; of several columns that say yes or no, one list of the names of
            those that say yes; the tags of tokens.
        tokens: of a sentence that comes in tokens; the text is all of them.
    """

    text: str
    prompt: str | None = None
    columns: dict[str, float] = attrs.field(factory=dict)
    conversation: Conversation | None = None
    labels: tuple[Any, ...] = ()
    tokens: tuple[str, ...] = ()

    def digest(self) -> int:
        """Make a number of 64 bits that two rows share if they say the same, in every process and run.

        It is signed, as Arrow's int64 is. Columns of the loss do not count: a row with another weight is the same row.
        """
        said = self.conversation
        turns = [said.messages, said.trained, said.tools, said.template_kwargs] if said else None
        spelled = _spell([self.prompt, self.text, turns, self.labels])
        return int.from_bytes(blake2b(spelled.encode(), digest_size=8).digest(), "big", signed=True)
