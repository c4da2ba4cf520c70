"""Answer prompts at every evaluation."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from smolora_core import RunContext
from smolora_core.inference import LoadedAdapter

_LONGEST = 64


class AnswerPrompts(TrainerCallback):
    """Emits the most likely answers to prompts, of at most 64 tokens each, as a `samples` event."""

    def __init__(self, prompts: Sequence[str], run: RunContext, row_format: str) -> None:
        self._prompts, self._run, self._row_format = prompts, run, row_format

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **more: Any
    ) -> None:
        """Format the prompts as in training, and answer them without a trace in the model or its random numbers."""
        decodes = not getattr(model.config, "is_encoder_decoder", False)
        in_turns = self._row_format in ("messages", "instruction") and decodes and bool(processing_class.chat_template)
        ending = "\n\n" if self._row_format == "instruction" else ""
        answers = LoadedAdapter(model, processing_class).generate_all(
            [_as_turn(each, processing_class) if in_turns else f"{each}{ending}" for each in self._prompts],
            max_new_tokens=_LONGEST,
            seed=self._run.config.seed,
            special_tokens=not in_turns,
        )
        self._run.emit("samples", step=state.global_step, prompts=list(self._prompts), answers=answers)


def _as_turn(prompt: str, tokenizer: Any) -> str:
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
