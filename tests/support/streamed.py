"""Texts that are prepared while they are read."""

from collections.abc import Callable, Iterator
from typing import Any

from smolora_core import Preprocessor, Task
from smolora_core.config import DataConfig
from smolora_core.data.pipeline import PreparedRows, Recipe
from smolora_core.data.preprocess import Step
from smolora_core.data.sources.located import Located
from smolora_core.data.stream import stream
from smolora_core.plugins import Origin, PluginManager, Registered, Tier, build

TASK = build(PluginManager.create().registry.resolve(Task, "causal-lm"))


def streamed(tokenizer: Any, texts: list[Any], make_step: Callable[[], Any] | None = None, **config: Any) -> PreparedRows:
    def read(on_bad: Any) -> Iterator[Located]:
        return (Located({"text": text}, f"rows.jsonl:{number}") for number, text in enumerate(texts, start=1))

    def make_steps() -> tuple[Step, ...]:
        if make_step is None:
            return ()
        record = Preprocessor(name="mine", summary="", implementation=make_step, ordered=True)
        return (Step(Registered(record, Origin("mine", Tier.USER)), make_step()),)

    section = DataConfig(train="rows.jsonl", **config)
    recipe = Recipe(config=section, make_steps=make_steps, task=TASK, formats=("text",), tokenizer=tokenizer)
    return stream(read, recipe)
