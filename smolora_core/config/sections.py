"""The sections of a run's config, with the default of every key.

Keys keep Hugging Face's names where one exists. A section is frozen; `attrs.evolve` makes a changed copy.
"""

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from smolora_core.config.validators import above, each_above, fraction, probability
from smolora_core.errors import ConfigError


def _auto_or_above_zero(instance: object, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value != "auto" and value < 1:
        raise ConfigError(f"{attribute.name} must be auto, or above 0, is {value!r}")


def _steps(instance: object, attribute: "attrs.Attribute[Any]", value: int) -> None:
    if value < 1 and value != -1:
        raise ConfigError(f"{attribute.name} must be above 0, or -1, is {value!r}")


def _seed(instance: object, attribute: "attrs.Attribute[Any]", value: int) -> None:
    if not 0 <= value < 2**32:
        raise ConfigError(f"{attribute.name} must be at least 0 and below 2^32, is {value!r}")


def _init(instance: object, attribute: "attrs.Attribute[Any]", value: str) -> None:
    usable = ("default", "gaussian", "orthogonal", "mica")
    if value.startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise ConfigError(
            f"init {value} changes the base weights, so that the saved adapter would not fit the base; "
            f"choose one of {', '.join(usable)}"
        )
    if value not in usable:
        raise ConfigError(f"init must be one of {', '.join(usable)}, is {value!r}")


@attrs.frozen(kw_only=True)
class Selection:
    """A component chosen by name, with the options the user gave it."""

    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict)


def _each_once(instance: object, attribute: "attrs.Attribute[Any]", value: tuple[Selection, ...]) -> None:
    names = [selection.name for selection in value]
    if not names:
        raise ConfigError(f"{attribute.name} is an empty list")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{attribute.name} names {twice!r} twice")


@attrs.frozen(kw_only=True)
class ModelConfig:
    """The base model. Written as one text, it is the path."""

    path: str
    """Folder or hub id of the base model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the frozen weights; auto measures the device."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes cuda, then mps, then cpu."""


@attrs.frozen(kw_only=True)
class DataConfig:
    """The rows and how they become text."""

    train: str | tuple[str, ...]
    """File, glob, list of files, folder or hub id (`owner/name`, `owner/name:config`, `owner/name:config:split`)."""
    eval: float | str | None = attrs.field(default=None, validator=fraction)
    """Fraction held out of train, or a file."""
    format: Literal["auto", "text", "prompt-completion", "instruction", "messages", "labelled", "tokens"] = "auto"
    """Shape of a row; auto looks at the columns."""
    text_field: str = "text"
    """Column of a text row."""
    prompt_field: str = "prompt"
    """Column of the prompt, which is not trained."""
    completion_field: str = "completion"
    """Column of the completion, which is trained."""
    instruction_field: str = "instruction"
    """Column of an instruction, which is not trained."""
    input_field: str = "input"
    """Column of what an instruction is about; it may be missing or empty."""
    output_field: str = "output"
    """Column of the answer to an instruction, which is trained."""
    messages_field: str | None = None
    """Column of a conversation; left out, messages or conversations."""
    label_field: str | tuple[str, ...] | None = None
    """Column, or columns, of what a text is labelled with."""
    weight_field: str | None = None
    """Column of numbers that say how much a row counts; left out, all count the same."""
    chat_template: str = "auto"
    """How turns become text: auto takes the tokenizer's template, plain is ours; or a .jinja file, or a name."""
    encoding: str = "auto"
    """Encoding of text files; auto tells UTF-8, UTF-16 and UTF-32 apart and says where it guesses."""
    delimiter: str = "auto"
    """What parts the columns of CSV files; auto looks at the first lines."""
    header: Literal["auto"] | bool = "auto"
    """Whether the first line of a CSV file names its columns."""
    max_seq_length: int = attrs.field(default=512, validator=above(1))
    """Tokens in a sequence at most."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with a row that cannot be used."""
    max_row_loss: float | None = attrs.field(default=None, validator=probability)
    """Fraction of rows that may prove unusable before the run stops; what a step leaves out does not count."""
    preprocessors: tuple[Selection, ...] = ()
    """Steps that rows go through, in this order."""
    streaming: bool = False
    """Whether rows are prepared while training, again in every epoch, for data that is larger than the disk."""
    num_proc: Literal["auto"] | int = attrs.field(default="auto", validator=_auto_or_above_zero)
    """Processes that prepare rows; auto takes one for a little data, and all processors for much."""
    cache: bool = True
    """Whether prepared rows are kept for the next run with the same data, code and settings."""


@attrs.frozen(kw_only=True)
class LoRAConfig:
    """The adapter.

    Example:
        >>> LoRAConfig(r=16, target_modules=("q_proj", "v_proj")).alpha
        16.0
    """

    r: int = attrs.field(default=8, validator=above(0))
    """Rank of the update."""
    alpha: float = attrs.field(default=16.0, converter=float, validator=above(0))
    """Scale of the update: it is multiplied by alpha / r."""
    dropout: float = attrs.field(default=0.1, validator=probability)
    """Share of inputs dropped in the adapter's path."""
    target_modules: str | tuple[str, ...] = "auto"
    """auto, attention, all-linear, a list of module names, or a regular expression that full names match."""
    exclude_modules: str | tuple[str, ...] = ()
    """Modules that are not adapted: a list of names, or a regular expression."""
    layers_to_transform: tuple[int, ...] = ()
    """Numbers of the blocks that are adapted, from 0; left out, all."""
    rank_pattern: Mapping[str, int] = attrs.field(factory=dict, validator=each_above(0))
    """Ranks of modules that differ from r, by name or regular expression."""
    alpha_pattern: Mapping[str, float] = attrs.field(factory=dict, validator=each_above(0))
    """Scales of modules that differ from alpha, by name or regular expression."""
    use_rslora: bool = False
    """Whether the update is multiplied by alpha / sqrt(r) instead."""
    use_dora: bool = False
    """Whether directions and lengths of weights are learned apart (DoRA)."""
    init: str = attrs.field(default="default", validator=_init)
    """How the adapter starts, always from what the base computes: default, gaussian, orthogonal or mica."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases of the base model are trained too."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained whole and saved with the adapter; new heads are, without being named."""
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Further arguments of peft.LoraConfig by name."""


@attrs.frozen(kw_only=True)
class TrainingSection:
    """The optimisation."""

    num_train_epochs: float = attrs.field(default=3.0, converter=float, validator=above(0))
    """Passes over the rows."""
    max_steps: int = attrs.field(default=-1, validator=_steps)
    """Optimizer steps at most; -1 leaves it to the epochs."""
    learning_rate: float = attrs.field(default=2e-4, validator=above(0))
    """Peak learning rate."""
    per_device_train_batch_size: Literal["auto"] | int = attrs.field(default=4, validator=_auto_or_above_zero)
    """Rows in a micro-batch; auto tries out how many fit in memory, and accumulates the rest of effective_batch_size."""
    effective_batch_size: int = attrs.field(default=16, validator=above(0))
    """Rows in an optimizer step on all devices, where per_device_train_batch_size is auto."""
    max_tokens_per_batch: int | None = attrs.field(default=None, validator=above(0))
    """Tokens in a micro-batch at most, padding included, which then holds as many rows as fit."""
    per_device_eval_batch_size: int = attrs.field(default=8, validator=above(0))
    """Rows in a batch when evaluating."""
    gradient_accumulation_steps: int = attrs.field(default=4, validator=above(0))
    """Micro-batches in an optimizer step."""
    logging_steps: int = attrs.field(default=10, validator=above(0))
    """Optimizer steps between two log lines."""
    eval_steps: int = attrs.field(default=500, validator=above(0))
    """Optimizer steps between two evaluations; there is always one before and one after."""
    batching: Literal["auto", "padding-free", "grouped", "padded"] = "auto"
    """How rows of different lengths share a micro-batch; auto does without padding where the model keeps rows apart."""
    fast_kernels: bool = True
    """Whether adapted layers, norms and gates may be computed in fewer passes than PEFT and transformers take."""
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Further transformers.TrainingArguments by name."""


@attrs.frozen(kw_only=True)
class CheckpointConfig:
    """What is saved during a run."""

    writers: tuple[Selection, ...] = attrs.field(default=(Selection(name="adapter"),), validator=_each_once)
    """What writes a checkpoint."""
    save_steps: int = attrs.field(default=500, validator=above(0))
    """Optimizer steps between two checkpoints."""
    keep: int = attrs.field(default=2, validator=above(1))
    """Checkpoints kept, besides the best and the one that the run goes on from."""
    save_failure: Literal["warn", "stop"] = "warn"
    """What to do when a checkpoint cannot be written: go on, unless it happens twice in a row; or stop at once."""


@attrs.frozen(kw_only=True)
class PluginConfig:
    """Which plugins a run needs, must not have, or brings along."""

    require: tuple[str, ...] = ()
    """Plugins or distributions that must load."""
    disable: tuple[str, ...] = ()
    """Plugins or distributions not to import."""
    load: tuple[str, ...] = ()
    """Python files to load as plugins."""


@attrs.frozen(kw_only=True)
class DebugConfig:
    """Help with finding out what happens."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """DEBUG tells every event and what other libraries say, WARNING warnings only, ERROR nothing but what ends a run."""
    profile_training: bool = False
    """Whether to say what took most time, and to leave profile.pstats of the training in the output folder."""
    save_intermediate: bool = False
    """Whether to keep the tokens and labels in the output folder."""


@attrs.frozen(kw_only=True)
class RunConfig:
    """Everything a run is made from."""

    model: ModelConfig
    task: str = "auto"
    """What is learned; auto looks at the model."""
    output_dir: str = "runs/smolora"
    """Folder of the run."""
    seed: int = attrs.field(default=42, validator=_seed)
    """Seed of everything random."""
    data: DataConfig
    lora: LoRAConfig = attrs.field(factory=LoRAConfig)
    training: TrainingSection = attrs.field(factory=TrainingSection)
    loss: Selection | None = None
    """The loss; left out, the task's."""
    memory: Literal["auto", "none"] | tuple[Selection, ...] = "auto"
    """Memory strategies: auto, none, or a list."""
    checkpoints: CheckpointConfig = attrs.field(factory=CheckpointConfig)
    plugins: PluginConfig = attrs.field(factory=PluginConfig)
    debug: DebugConfig = attrs.field(factory=DebugConfig)
