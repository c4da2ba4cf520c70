"""Every hook a plugin can implement.

A plugin is a module (or an object) with functions of these names, each decorated with `@hookimpl`. Packages register it as
an entry point in the group `smolora`:

    [project.entry-points.smolora]
    acme = "acme_smolora"

Contribution hooks take no arguments, are cheap and pure, and return an iterable of records. Event hooks are called during a
run. An implementation may omit arguments that it does not use; later versions only add arguments.
"""

# mypy: disable-error-code="empty-body"

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pluggy

from smolora_core.components import KINDS, CheckpointWriter, Loss, MemoryStrategy, Preprocessor, RunContext, Targets, Task
from smolora_core.errors import Problem

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from smolora_core.config import RunConfig

PROJECT = "smolora"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        status: `finished`, `failed` or `interrupted`.
        steps: the number of optimizer steps taken.
        metrics: the last training loss, and the losses and task metrics of the evaluations before and after training.
        adapter: the folder of the final adapter.
        model: the trained `PeftModel`, in evaluation mode.
        tokenizer: the base model's tokenizer.
        error: the exception that ended a run that did not finish.
    """

    status: Literal["finished", "failed", "interrupted"]
    steps: int = 0
    metrics: dict[str, float] = attrs.field(factory=dict)
    adapter: Path | None = None
    model: Any = None
    tokenizer: Any = None
    error: BaseException | None = None


CONTRIBUTIONS = {f"smolora_{plural.replace('-', '_')}": record for plural, record in KINDS.items()}
"""Contribution hooks by name, each with the record type it returns."""


@hookspec
def smolora_targets() -> Iterable[Targets]:
    """Define which modules of an architecture LoRA adapts.

    Example:
        @hookimpl
        def smolora_targets():
            yield Targets(
                name="my-llama",
                summary="attention of MyLlama",
                model_types=("my_llama",),
                modules=("q_proj", "k_proj", "v_proj", "o_proj"),
            )
    """


@hookspec
def smolora_preprocessors() -> Iterable[Preprocessor]:
    """Offer steps that transform rows before tokenization.

    Example:
        def lowercase(row, *, field="text"):
            return {**row, field: row[field].lower()}

        @attrs.frozen
        class Lowercase:
            field: str = "text"

        @hookimpl
        def smolora_preprocessors():
            yield Preprocessor(
                name="lowercase",
                summary="convert a field to lower case",
                implementation="my_package:lowercase",
                options=Lowercase,
            )
    """


@hookspec
def smolora_losses() -> Iterable[Loss]:
    """Offer loss functions, unreduced like PyTorch's with `reduction="none"`.

    Example:
        def confident(logits, targets):  # logits [n, V], targets [n] -> [n]
            return torch.nn.functional.cross_entropy(1.1 * logits, targets, reduction="none")

        @hookimpl
        def smolora_losses():
            yield Loss(
                name="confident",
                summary="cross-entropy of sharpened logits",
                implementation="my_package.losses:confident",
            )
    """


@hookspec
def smolora_memory_strategies() -> Iterable[MemoryStrategy]:
    """Offer ways to use less memory.

    Example:
        class Collect:
            def step_finished(self, step, run):
                if step % 100 == 0:
                    gc.collect()

        @hookimpl
        def smolora_memory_strategies():
            yield MemoryStrategy(
                name="collect",
                summary="collect garbage every 100 steps",
                implementation="my_package.memory:Collect",
                devices=("cpu",),
            )
    """


@hookspec
def smolora_checkpoint_writers() -> Iterable[CheckpointWriter]:
    r"""Offer checkpoint formats.

    Example:
        def write_card(checkpoint, directory):
            (directory / "CARD.md").write_text(f"# step {checkpoint.step}\n", encoding="utf-8")

        @hookimpl
        def smolora_checkpoint_writers():
            yield CheckpointWriter(name="card", summary="a model card", implementation="my_package.cards:write_card")
    """


@hookspec
def smolora_tasks() -> Iterable[Task]:
    """Offer tasks: how rows become features, and the model class for them.

    Example:
        @hookimpl
        def smolora_tasks():
            yield Task(
                name="ranking",
                summary="score a pair of texts",
                implementation="my_package.ranking:Ranking",
                model_class="AutoModelForSequenceClassification",
                peft_task_type="SEQ_CLS",
                loss="mse",
                predicts="row",
                new_head=True,
                formats=("scored",),
            )
    """


@hookspec
def smolora_check_config(config: "RunConfig") -> Iterable[Problem]:
    """Report problems with a config before anything is loaded.

    Example:
        @hookimpl
        def smolora_check_config(config):
            if config.training.learning_rate > 0.1:
                yield Problem("training.learning_rate is above 0.1", hint="typical values for LoRA are 1e-4 to 3e-3")
    """


@hookspec
def smolora_callbacks(run: RunContext, row_format: str) -> "Iterable[TrainerCallback]":
    r"""Add `transformers.TrainerCallback` objects to a run, whose rows have the format `row_format`, as in `data.format`.

    Example:
        class Bell(TrainerCallback):
            def on_train_end(self, args, state, control, **kwargs):
                print("\a")

        @hookimpl
        def smolora_callbacks(run):
            yield Bell()
    """


@hookspec
def smolora_adapter_attached(model: "nn.Module", run: RunContext) -> None:
    """Act on the model when the adapter is attached and training has not started.

    Example:
        @hookimpl
        def smolora_adapter_attached(model, run):
            model.print_trainable_parameters()
    """


@hookspec
def smolora_run_finished(run: RunContext, outcome: Outcome) -> None:
    """Act on the outcome of a run, including a failure or an interrupt; the built-in plugins are called last.

    Example:
        @hookimpl
        def smolora_run_finished(run, outcome):
            print(run.config.output_dir, outcome.status)
    """
