"""The records a plugin contributes, and the shape of what each of them builds.

A record is data: cheap to make, safe to list, never importing torch. It names its implementation as text, and the core
imports that only when the component is chosen. Options arrive as keyword arguments: to a function at each call, to a class
when it is made.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

import attrs

from smolora_core.config import DataConfig, RunConfig
from smolora_core.config.secrets import Mask
from smolora_core.errors import PluginError, nearest

if TYPE_CHECKING:
    import torch
    from datasets.arrow_dataset import Dataset
    from torch import Tensor, nn

# `scored` rows are labelled ones whose labels are numbers.
_SHAPES = (*get_args(attrs.fields_dict(DataConfig)["format"].type)[1:], "scored")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_TARGET = re.compile(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*(\.\w+)*")

Implementation = str | Callable[..., Any]
Row = dict[str, Any]


def _tuple(values: Any) -> Any:
    """Make a tuple of what can be one; `_are_names` refuses the rest, because it knows whose field it is."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else values


def _are_names(component: "Component", field: "attrs.Attribute[Any]", values: Any) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        hint = f"write ({values!r},)" if isinstance(values, str) else ""
        raise PluginError(f"{field.name} must be a list of names, is {values!r}", where=f"{component.title}:", hint=hint)


def _are_shapes(task: "Task", field: "attrs.Attribute[Any]", values: Any) -> None:
    _are_names(task, field, values)
    if unknown := next((value for value in values if value not in _SHAPES), None):
        hint = nearest(unknown, _SHAPES) or f"there are: {', '.join(_SHAPES)}"
        raise PluginError(f"formats names {unknown!r}, which no rows have", where=f"{task.title}:", hint=hint)


def _one_of(*choices: str) -> Any:
    def check(component: "Component", field: "attrs.Attribute[Any]", value: Any) -> None:
        if value not in choices:
            what = f"{field.name} must be one of {', '.join(choices)}, is {value!r}"
            raise PluginError(what, where=f"{component.title}:", hint=nearest(str(value), choices))

    return check


@attrs.frozen(kw_only=True)
class Component:
    """What every record has.

    Attributes:
        noun: what messages call one of the kind.
        plural: what listings call the kind; its hook is `smolora_` and this, with `_` for `-`.
        name: how a config names it: `[a-z0-9][a-z0-9-]*`.
        summary: one line for listings, without a full stop.
        implementation: `"package.module:attribute"`, or the callable itself for one-off use from Python.
        options: an attrs class; its fields are the component's config keys, flags and keyword arguments.
        replaces: the name of the built-in whose place this takes.

    Raises:
        PluginError: a field cannot be used; the message names the component and the field.
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
        """What messages call this record: `Loss 'focal'`."""
        return f"{type(self).__name__} {self.name!r}"

    def __attrs_post_init__(self) -> None:
        where = f"{self.title}:"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            better = re.sub(r"[^a-z0-9]+", "-", str(self.name).lower()).strip("-") or "my-name"
            raise PluginError("the name has other characters than a-z, 0-9 and -", where=where, hint=f"write {better!r}")
        if not isinstance(self.summary, str):
            raise PluginError(f"summary must be text, is {self.summary!r}", where=where)
        if isinstance(self.implementation, str) and not _TARGET.fullmatch(self.implementation):
            hint = "write 'package.module:attribute'"
            raise PluginError(f"implementation {self.implementation!r} names nothing", where=where, hint=hint)
        if not isinstance(self.implementation, str) and not callable(self.implementation):
            raise PluginError("implementation is neither a name nor a callable", where=where)
        if self.options is not None and not (isinstance(self.options, type) and attrs.has(self.options)):
            hint = "decorate it with @attrs.frozen" if isinstance(self.options, type) else "give the class itself"
            raise PluginError(f"options {self.options!r} is not an attrs class", where=where, hint=hint)


@attrs.frozen(kw_only=True)
class Targets(Component):
    """Which modules of an architecture LoRA adapts: data only.

    Attributes:
        model_types: the values of `config.model_type` this speaks for.
        modules: module names (`q_proj`) or dotted ends of names (`attn.c_proj`); each must match at least one module.

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
    """A step that rows go through before they become tokens.

    Attributes:
        scope: `row`: `(row) -> row | None | Drop("reason") | list[row]`; `dataset`: `(dataset, context) -> dataset`,
            where `context` has `tokenizer`, `max_seq_length`, `seed` and `text_field`.
        context: whether a step of scope `row` is told the context too: `(row, context) -> ...`.
        ordered: whether a step of scope `row` remembers earlier rows. It then meets all of them in their order; other
            steps share the rows among processes. Each pass over the data makes a class anew.
    """

    noun: ClassVar[str] = "preprocessor"
    plural: ClassVar[str] = "preprocessors"

    scope: Literal["row", "dataset"] = attrs.field(default="row", validator=_one_of("row", "dataset"))
    context: bool = False
    ordered: bool = False


@attrs.frozen(kw_only=True)
class Loss(Component):
    """An unreduced loss; the core weights, sums and normalises what it returns.

    Attributes:
        kind: `token`: `(logits[n, V], targets[n]) -> [n]`, called on chunks of supervised positions, or on rows that have a
            class each; `prediction`: `(predictions[B, ...], targets[B, ...]) -> [B, ...]`; `model`:
            `(model, batch) -> (sum, weight)`.
        columns: dataset columns it needs, a per-row `weight` say; they arrive as keyword arguments, a value for each target
            of a token loss, and `[B, 1]` beside predictions `[B, K]`.
    """

    noun: ClassVar[str] = "loss"
    plural: ClassVar[str] = "losses"

    kind: Literal["token", "prediction", "model"] = attrs.field(
        default="token", validator=_one_of("token", "prediction", "model")
    )
    columns: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_are_names)


@attrs.frozen(kw_only=True)
class MemoryStrategy(Component):
    """A way to need less memory: an object with any of the methods of `Strategy`.

    Attributes:
        devices: device types it helps on: `cpu`, `cuda`, `mps`.
        default: whether `memory: auto` switches it on there.
        lossy: whether what is learned is other than without it, as over quantised weights; a run that is continued must then
            have it with the same options.
        variants: options that stand for other trade-offs than the default ones, for `smolora plan` to try as well.
    """

    noun: ClassVar[str] = "memory strategy"
    plural: ClassVar[str] = "memory-strategies"

    devices: tuple[str, ...] = attrs.field(converter=_tuple, validator=_are_names)
    default: bool = False
    lossy: bool = False
    variants: tuple[Mapping[str, Any], ...] = attrs.field(default=(), converter=tuple, hash=False)


@attrs.frozen(kw_only=True)
class CheckpointWriter(Component):
    """A `(checkpoint, directory) -> None` that writes into an empty private directory, which the core then commits."""

    noun: ClassVar[str] = "checkpoint writer"
    plural: ClassVar[str] = "checkpoint-writers"


@attrs.frozen(kw_only=True)
class Task(Component):
    """What is learned: how rows become features, which model class computes them, and the loss that fits.

    Attributes:
        model_class: the `transformers` auto class that loads the base model.
        peft_task_type: PEFT's `TaskType` name, or None for a task PEFT has no type for.
        loss: the name of the default loss. A loss fits that is of the same kind, or of kind `model`.
        multi_label_loss: the name of the default loss where a row may have several labels.
        predicts: what the logits stand beside. `next-token`: `logits[B, T]` and the labels `[B, T]` one position on; `token`:
            the labels at the same position; `row`: `logits[B, C]` and labels `[B]` of classes, or `[B, K]` of numbers.
        new_head: whether a head that the base model has no weights for is expected; it is trained whole and saved.
        architectures: ends of architecture names (`ForCausalLM`) that `task: auto` takes as this task.
        formats: shapes of rows it can learn from, of those that `data.format` knows, or `scored`: a text and numbers.
    """

    noun: ClassVar[str] = "task"
    plural: ClassVar[str] = "tasks"

    model_class: str
    peft_task_type: str | None = None
    loss: str
    multi_label_loss: str | None = None
    predicts: Literal["next-token", "token", "row"] = attrs.field(
        default="next-token", validator=_one_of("next-token", "token", "row")
    )
    new_head: bool = False
    architectures: tuple[str, ...] = attrs.field(default=(), converter=_tuple, validator=_are_names)
    formats: tuple[str, ...] = attrs.field(
        default=("text", "prompt-completion", "instruction", "messages"), converter=_tuple, validator=_are_shapes
    )

    @property
    def writes(self) -> bool:
        """Whether the model writes text, so that its labels are tokens that should end."""
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
    """What a row preprocessor returns to drop a row and say why.

    Attributes:
        reason: the same words for all rows that leave for it, so that they are counted together.
        size: how large the row was by the measure that the reason speaks of; the ledger keeps the largest.
    """

    reason: str
    size: int | None = None


class RowPreprocessor(Protocol):
    """What a `Preprocessor` of scope `row` builds."""

    def __call__(self, row: Row, /) -> "Row | Drop | list[Row] | None": ...


class DatasetPreprocessor(Protocol):
    """What a `Preprocessor` of scope `dataset` builds."""

    def __call__(self, dataset: "Dataset", context: Any, /) -> "Dataset": ...


class TokenLoss(Protocol):
    """What a `Loss` of kind `token` builds: `logits [n, V]` float32, `targets [n]` int64 -> `[n]`."""

    def __call__(self, logits: "Tensor", targets: "Tensor", /, **columns: "Tensor") -> "Tensor": ...


class PredictionLoss(Protocol):
    """What a `Loss` of kind `prediction` builds: `predictions [B, ...]`, `targets [B, ...]` -> `[B, ...]`, all float32."""

    def __call__(self, predictions: "Tensor", targets: "Tensor", /, **columns: "Tensor") -> "Tensor": ...


class ModelLoss(Protocol):
    """What a `Loss` of kind `model` builds: a differentiable sum and a weight, both 0-dimensional."""

    def __call__(self, model: "nn.Module", batch: Mapping[str, "Tensor"], /) -> "tuple[Tensor, Tensor]": ...


class Strategy(Protocol):
    """What a `MemoryStrategy` builds: an object with the methods it needs and no others.

    `load_kwargs` gives further arguments of `from_pretrained`; `out_of_memory` frees memory and returns whether the same
    micro-batch may be tried again; the others act on the adapted model, after a step, and once training is over.
    """

    def load_kwargs(self, run: RunContext) -> dict[str, Any]: ...
    def model_ready(self, model: "nn.Module", run: RunContext) -> None: ...
    def step_finished(self, step: int, run: RunContext) -> None: ...
    def out_of_memory(self, error: BaseException, run: RunContext) -> bool: ...
    def run_finished(self, run: RunContext) -> None: ...


class Writer(Protocol):
    """What a `CheckpointWriter` builds."""

    def __call__(self, checkpoint: Any, directory: Path, /) -> None: ...


@attrs.frozen
class Encoded:
    """What a task makes of one example.

    Attributes:
        sequences: feature dicts, `input_ids` and `labels` (-100 where nothing is learned) of equal length among them.
        supervised: targets that the loss sees in them.
        tokens_lost: tokens that were cut off because the example was too long.
        open_ended: supervised stretches whose end-of-turn token is not trained, so that nothing says where to stop.
    """

    sequences: tuple[dict[str, Any], ...]
    supervised: int
    tokens_lost: int = 0
    open_ended: int = 0


@attrs.frozen(kw_only=True)
class TaskSetup:
    """What a task looks at before the model is loaded.

    Attributes:
        train: encoded rows to train on: a `datasets.Dataset`, or rows that are streamed.
        held_out: those to evaluate on, or None.
        tokenizer: of the base model.
        pad_token_id: what rows are filled up with.
        model_config: the base model's transformers config.
        label_field: the label columns that the config names.
    """

    train: Iterable[Mapping[str, Any]]
    held_out: Iterable[Mapping[str, Any]] | None
    tokenizer: Any
    pad_token_id: int
    model_config: Any
    label_field: str | tuple[str, ...] | None = None


class TaskImplementation(Protocol):
    """What a `Task` builds; it may have methods of `TaskMethods` too."""

    def encode(self, examples: Sequence[Any], tokenizer: Any, max_length: int) -> "Sequence[Encoded | Drop]":
        """Turn examples into features, each into one or more sequences or a reason to drop it."""

    def collate(self, rows: Sequence[Mapping[str, Any]], pad_token_id: int) -> "dict[str, Tensor]":
        """Make a micro-batch of encoded rows. With a further argument `seed`, it is told a number to draw by.

        The number changes with the run's seed and the epoch, and is the same in every evaluation.
        """


class TaskMethods(Protocol):
    """What the implementation of a task may have besides; it has those it needs and no others."""

    def configure(self, setup: TaskSetup) -> Mapping[str, Any]:
        """Look at the encoded rows; return what to change in the model's config: `num_labels`, `id2label`, ...

        It is called once, before rows are collated, on the object that collates them.
        """

    def observe(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Keep what metrics are made of, `[n, k]`, of some `logits[n, C]` or `predictions[n, K]` and their targets."""

    def metrics(self, observed: "Tensor", rows: "Tensor") -> Mapping[str, float]:
        """Compute metrics of all that was kept in an evaluation, `[N, k]`, and of the number `[N]` of the row each is of."""
