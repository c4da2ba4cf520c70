"""Tasks that come with SmoLoRA."""

from collections.abc import Iterable

from smolora_core import Task, hookimpl


@hookimpl
def smolora_tasks() -> Iterable[Task]:
    """Offer the built-in tasks."""
    yield Task(
        name="causal-lm",
        summary="predict the next token of a text, or of the completion of a prompt",
        implementation="smolora_plugins.tasks.causal_lm:CausalLM",
        model_class="AutoModelForCausalLM",
        peft_task_type="CAUSAL_LM",
        loss="cross-entropy",
        architectures=("ForCausalLM", "LMHeadModel"),
    )
