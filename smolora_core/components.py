"""The records a plugin contributes, and protocols for what they build.

A record is data: created and listed without importing torch. It refers to its implementation by import path, which the
core imports only when the component is selected. Options arrive as keyword arguments: to a function at each call, to a
class when it is instantiated.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

import attrs

from smolora_core.config import DataConfig, RunConfig
from smolora_core.config.secrets import Mask
from smolora_core.errors import PluginError, did_you_mean, nearest

if TYPE_CHECKING:
    import torch
    from datasets.arrow_dataset import Dataset
    from torch import Tensor, nn

# `scored` rows are labelled rows with numeric labels.
_FORMATS = (*get_args(attrs.fields_dict(DataConfig)["format"].type)[1:], "scored")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*(\.\w+)*")

Implementation = str | Callable[..., Any]
Row = dict[str, Any]


def _tuple(values: Any) -> Any:
    # Anything else is left to `_are_names`, whose error names the component and the field.
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else values


def _are_names(component: "Component", field: "attrs.Attribute[Any]", values: Any) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        hint = f"write ({values!r},)" if isinstance(values, str) else ""
        raise PluginError(f"{field.name} must be a list of names, got {values!r}", where=f"{component.title}:", hint=hint)


def _are_formats(task: "Task", field: "attrs.Attribute[Any]", values: Any) -> None:
    _are_names(task, field, values)
    if unknown := next((value for value in values if value not in _FORMATS), None):
        what, where = f"formats contains the unknown format {unknown!r}", f"{task.title}:"
        raise PluginError(what, where=where, hint=did_you_mean(unknown, _FORMATS))


def _is_choice(component: "Component", field: "attrs.Attribute[Any]", value: Any) -> None:
    choices = get_args(field.type)
    if value not in choices:
        what = f"{field.name} must be one of {', '.join(choices)}, got {value!r}"
        raise PluginError(what, where=f"{component.title}:", hint=nearest(str(value), choices))


@attrs.frozen(kw_only=True)
class Component:
    """The fields that every record has.

    Attributes:
        noun: the name of the kind in messages.
        plural: the plural in listings; the kind's hook is `smolora_` and this, with `_` for `-`.
        name: the component's name in a config: `[a-z0-9][a-z0-9-]*`.
        summary: a one-line description for listings, without a full stop.
        implementation: `"package.module:attribute"`, or the callable itself for one-off use from Python.
        options: an attrs class whose fields become config keys, flags and keyword arguments.
        replaces: the name of the built-in component to replace.

    Raises:
        PluginError: a field is invalid; the message names the component and the field.
    """

    noun: ClassVar[str] = "component"
    plural: ClassVar[str] = "components"

    name: str
    summary: str
    implementation: Implementation
    options: type[Any] | None = None
    replaces: str | None = None

    @property
    def title(self) -> str:
        """The record's name in messages: `Loss 'focal'`."""
        return f"{type(self).__name__} {self.name!r}"

    def __attrs_post_init__(self) -> None:
        where = f"{self.title}:"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            better = re.sub(r"[^a-z0-9]+", "-", str(self.name).lower()).strip("-") or "my-name"
            raise PluginError("a name may contain only a-z, 0-9 and -", where=where, hint=f"write {better!r}")
        if not isinstance(self.summary, str):
            raise PluginError(f"summary must be a string, got {self.summary!r}", where=where)
        implementation = self.implementation
        if not (_IMPORT_PATH.fullmatch(implementation) if isinstance(implementation, str) else callable(implementation)):
            what = f"implementation {implementation!r} is neither an import path nor a callable"
            raise PluginError(what, where=where, hint="write 'package.module:attribute'")
        if self.options is not None and not (isinstance(self.options, type) and attrs.has(self.options)):
            hint = "decorate it with @attrs.frozen" if isinstance(self.options, type) else "pass the class, not an instance"
            raise PluginError(f"options {self.options!r} is not an attrs class", where=where, hint=hint)


@attrs.frozen(kw_only=True)
class Targets(Component):
    """The modules of an architecture that LoRA adapts.

    Attributes:
        model_types: values of `config.model_type` this record applies to.
        modules: module names (`q_proj`) or dotted suffixes (`attn.c_proj`); each must match at least one module.

    Example:
        >>> Targets(name="llama", summary="attention", model_types=("llama",), modules=("q_proj", "v_proj")).modules
        ('q_proj', 'v_proj')
    """

    noun: ClassVar[str] = "targets record"
    plural: ClassVar[str] = "targets"

    implementation: Implementation = attrs.field(default="smolora_core.components:Targets", init=False, repr=False)
    model_types: tuple[str, ...] = attrs.field(converter=_tuple, validator=_are_names)
    modules: tuple[str, ...] = attrs.field(converter=_tuple, validator=_are_names)


@attrs.frozen(kw_only=True)
class Preprocessor(Component):
    """A step that transforms rows before tokenization.

    Attributes:
        scope: `row` for `(row) -> row | None | Drop("reason") | list[row]`, `dataset` for `(dataset, context) -> dataset`,
            where `context` has `tokenizer`, `max_seq_length`, `seed` and `text_field`.
        context: whether a step of scope `row` takes the context too: `(row, context) -> ...`.
        ordered: whether a step of scope `row` keeps state between rows. It then receives all rows in order, in one process;
            the rows of other steps are split among processes. A class is instantiated for each pass over the data.
    """

    noun: ClassVar[str] = "preprocessor"
    plural: ClassVar[str] = "preprocessors"

    scope: Literal["row", "dataset"] = attrs.field(default="row", validator=_is_choice)
    context: bool = False
    ordered: bool = False


@attrs.frozen(kw_only=True)
class Loss(Component):
    """An unreduced loss; the core weights, sums and normalises its values.

    Attributes:
        kind: `token` for `(logits[n, V], targets[n]) -> [n]`, called on chunks of supervised positions, or on rows with one
            class each; `prediction` for `(predictions[B, ...], targets[B, ...]) -> [B, ...]`; `model` for
            `(model, batch) -> (sum, weight)`.
        columns: the dataset columns it needs, such as a per-row `weight`. They arrive as keyword arguments, with one value
            per target of a token loss, and as `[B, 1]` for predictions `[B, K]`.
    """

    noun: ClassVar[str] = "loss"
    plural: ClassVar[str] = "losses"

    kind: Literal["token", "prediction", "model"] = attrs.field(default="token", validator=_is_choice)
    columns: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_are_names)


@attrs.frozen(kw_only=True)
class MemoryStrategy(Component):
    """A way to use less memory: an object with any of the methods of `Strategy`.

    Attributes:
        devices: the device types it supports: `cpu`, `cuda`, `mps`.
        default: whether `memory: auto` enables it on these devices.
        lossy: whether it changes the result of training, as quantised weights do; a resumed run must then use it with the
            same options.
        variants: alternative options with other trade-offs, which `smolora plan` also tries.
    """

    noun: ClassVar[str] = "memory strategy"
    plural: ClassVar[str] = "memory-strategies"

    devices: tuple[str, ...] = attrs.field(converter=_tuple, validator=_are_names)
    default: bool = False
    lossy: bool = False
    variants: tuple[Mapping[str, Any], ...] = attrs.field(default=(), converter=tuple, hash=False)


@attrs.frozen(kw_only=True)
class CheckpointWriter(Component):
    """A checkpoint format: `(checkpoint, directory) -> None` writes to an empty private directory, which the core commits."""

    noun: ClassVar[str] = "checkpoint writer"
    plural: ClassVar[str] = "checkpoint-writers"


@attrs.frozen(kw_only=True)
class Task(Component):
    """A training task: how rows become features, the model class, and the default loss.

    Attributes:
        model_class: the `transformers` auto class that loads the base model.
        peft_task_type: PEFT's `TaskType` name, or None if PEFT has no type for the task.
        loss: the name of the default loss; other losses of its kind, or of kind `model`, can replace it.
        multi_label_loss: the name of the default loss when a row may have several labels.
        predicts: the alignment of logits and labels: `next-token` for `logits[B, T, V]` and the labels `[B, T]` one position
            later, `token` for labels at the same position, `row` for `logits[B, C]` and labels `[B]` or `[B, K]`.
        new_head: whether the base model may lack weights for the head, which is then trained in full and saved.
        architectures: suffixes of architecture names (`ForCausalLM`) for which `task: auto` selects this task.
        formats: the row formats it supports, from those of `data.format`, or `scored` for a text and numbers.
    """

    noun: ClassVar[str] = "task"
    plural: ClassVar[str] = "tasks"

    model_class: str
    peft_task_type: str | None = None
    loss: str
    multi_label_loss: str | None = None
    predicts: Literal["next-token", "token", "row"] = attrs.field(default="next-token", validator=_is_choice)
    new_head: bool = False
    architectures: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_are_names)
    formats: tuple[str, ...] = attrs.field(
        default=("text", "prompt-completion", "instruction", "messages"), converter=_tuple, validator=_are_formats
    )

    @property
    def writes(self) -> bool:
        """Whether the model generates text, so that its labels should end with an end-of-turn token."""
        return self.predicts == "next-token" or self.peft_task_type == "SEQ_2_SEQ_LM"


KINDS: Mapping[str, type[Component]] = {
    record.plural: record for record in (Targets, Preprocessor, Loss, MemoryStrategy, CheckpointWriter, Task)
}


@attrs.frozen(kw_only=True)
class RunContext:
    """A run, as hooks and memory strategies see it.

    Attributes:
        config: every value of the run's config.
        folder: the run's folder.
        device: the device the run computes on.
        plugins: the loaded plugins, a `PluginManager`.
        emit: writes an event and shows it: `run.emit("note", text="...")`.
        mask: removes secrets from text, lists and mappings.
        leads: whether this process is the one that writes; a run of one process always leads.
        resumes: whether the run resumes from a checkpoint.
    """

    config: RunConfig
    folder: Path
    device: "torch.device"
    plugins: Any
    emit: Callable[..., None]
    mask: Mask = attrs.field(factory=Mask)
    leads: bool = True
    resumes: bool = False

    def warn(self, text: str) -> None:
        """Write a warning and show it."""
        self.emit("warning", text=text)


@attrs.frozen
class Drop:
    """The result of a row preprocessor that drops the row.

    Attributes:
        reason: the reason, in the same words for all rows it applies to, because rows are counted by it.
        size: the size of the row, if the reason is its size; the ledger keeps the largest.
    """

    reason: str
    size: int | None = None


class RowPreprocessor(Protocol):
    """The implementation of a `Preprocessor` of scope `row`."""

    def __call__(self, row: Row, /) -> "Row | Drop | list[Row] | None": ...


class DatasetPreprocessor(Protocol):
    """The implementation of a `Preprocessor` of scope `dataset`."""

    def __call__(self, dataset: "Dataset", context: Any, /) -> "Dataset": ...


class TokenLoss(Protocol):
    """The implementation of a `Loss` of kind `token`: `logits [n, V]` float32, `targets [n]` int64 -> `[n]`."""

    def __call__(self, logits: "Tensor", targets: "Tensor", /, **columns: "Tensor") -> "Tensor": ...


class PredictionLoss(Protocol):
    """The implementation of a `Loss` of kind `prediction`: float32 `predictions [B, ...]`, `targets [B, ...]` -> `[B, ...]`."""

    def __call__(self, predictions: "Tensor", targets: "Tensor", /, **columns: "Tensor") -> "Tensor": ...


class ModelLoss(Protocol):
    """The implementation of a `Loss` of kind `model`, which returns a differentiable sum and its weight as scalar tensors."""

    def __call__(self, model: "nn.Module", batch: Mapping[str, "Tensor"], /) -> "tuple[Tensor, Tensor]": ...


class Strategy(Protocol):
    """The implementation of a `MemoryStrategy`: an object with only the methods it needs.

    `load_kwargs` returns additional arguments of `from_pretrained`, `model_ready` receives the adapted model, and
    `out_of_memory` frees memory and returns whether to retry the micro-batch.
    """

    def load_kwargs(self, run: RunContext) -> dict[str, Any]: ...
    def model_ready(self, model: "nn.Module", run: RunContext) -> None: ...
    def step_finished(self, step: int, run: RunContext) -> None: ...
    def out_of_memory(self, error: BaseException, run: RunContext) -> bool: ...
    def run_finished(self, run: RunContext) -> None: ...


class Writer(Protocol):
    """The implementation of a `CheckpointWriter`."""

    def __call__(self, checkpoint: Any, directory: Path, /) -> None: ...


@attrs.frozen
class Encoded:
    """One example, encoded by a task.

    Attributes:
        sequences: feature dicts with `input_ids` and `labels` of equal length (-100 where masked).
        supervised: the number of targets in them that contribute to the loss.
        tokens_lost: the number of tokens cut off because the example was too long.
        open_ended: the number of supervised spans whose end-of-turn token is masked, so that the model does not learn to stop.
    """

    sequences: tuple[dict[str, Any], ...]
    supervised: int
    tokens_lost: int = 0
    open_ended: int = 0


@attrs.frozen(kw_only=True)
class TaskSetup:
    """The data and the base model's config, for a task to inspect before the model is loaded.

    Attributes:
        train: the encoded training rows: a `datasets.Dataset`, or a stream of rows.
        held_out: the encoded rows of all held-out sets, or None.
        tokenizer: the base model's tokenizer.
        pad_token_id: the token that pads sequences.
        model_config: the base model's transformers config.
        label_field: the label columns set in the config.
    """

    train: Iterable[Mapping[str, Any]]
    held_out: Iterable[Mapping[str, Any]] | None
    tokenizer: Any
    pad_token_id: int
    model_config: Any
    label_field: str | tuple[str, ...] | None = None


class TaskImplementation(Protocol):
    """The implementation of a `Task`; it may also have methods of `TaskMethods`."""

    def encode(self, examples: Sequence[Any], tokenizer: Any, max_length: int) -> "Sequence[Encoded | Drop]":
        """Encode each example as one or more sequences, or return the reason to drop it."""

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> "dict[str, Tensor]":
        """Make a micro-batch of encoded rows.

        A task that draws random numbers takes a third argument `seed`, which depends on the run's seed and the epoch, and is
        the same in every evaluation.
        """


class TaskMethods(Protocol):
    """Optional methods of a task's implementation; define only those you need."""

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Inspect the encoded rows and return changes to the model's config: `num_labels`, `id2label`, ...

        It is called once, before rows are collated, on the object that collates them.
        """

    def observe(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Return the values `[n, k]` that metrics need from `logits[n, C]` or `predictions[n, K]` and their targets."""

    def metrics(self, observed: "Tensor", rows: "Tensor") -> Mapping[str, float]:
        """Compute metrics from the observed values `[N, k]` of an evaluation and the index `[N]` of the row each belongs to."""
