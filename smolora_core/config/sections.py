"""The sections of a run's config, with the default of every key.

Keys keep Hugging Face's names where they exist. Sections are frozen; `attrs.evolve` makes a changed copy.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from smolora_core.config.validators import above, each_above, fraction, probability, require, seconds_of
from smolora_core.errors import ConfigError

_ACCUMULATION = 4
_ROWS_OF_AUTO = 16

_auto_or_positive = require(lambda value: value == "auto" or value >= 1, "auto or above 0")
_duration = require(lambda value: seconds_of(value) is not None, "a time such as 90s, 30m, 2h or 1h30m")
_max_steps = require(lambda value: value == -1 or value >= 1, "above 0 or -1")
_seed = require(lambda value: 0 <= value < 2**32, "at least 0 and below 2^32")
# How names of metrics begin: `eval_token_loss` would look like one of them, not like the loss of a set named `token`.
_METRICS = ("loss", "perplexity", "accuracy", "token", "macro", "entity", "pearson", "spearman", "rmse")


def _named_sets(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, Mapping):
        return
    if not value:
        raise ConfigError(f"{attribute.name} is an empty mapping")
    for name in value:
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            raise ConfigError(f"{attribute.name} names a set {name!r}, but a name may contain only a-z, 0-9, _ and -")
        if name in _METRICS:
            raise ConfigError(f"{attribute.name} names a set {name!r}, but names of metrics begin with that word")


def _init(instance: object, attribute: "attrs.Attribute[Any]", value: str) -> None:
    usable = ("default", "gaussian", "orthogonal", "mica")
    if value.startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise ConfigError(
            f"init {value} changes the base weights, so the saved adapter would not match the base model; "
            f"choose one of {', '.join(usable)}"
        )
    if value not in usable:
        raise ConfigError(f"init must be one of {', '.join(usable)}, got {value!r}")


@attrs.frozen(kw_only=True)
class Selection:
    """A component chosen by name, with the options the user set."""

    name: str
    options: Mapping[str, Any] = attrs.field(factory=dict)


def _unique(instance: object, attribute: "attrs.Attribute[Any]", value: tuple[Selection, ...]) -> None:
    names = [selection.name for selection in value]
    if not names:
        raise ConfigError(f"{attribute.name} is an empty list")
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{attribute.name} lists {duplicate!r} twice")


@attrs.frozen(kw_only=True)
class ModelConfig:
    """The base model; a single string is its path."""

    path: str
    """Folder or hub id of the base model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the frozen weights; auto picks the faster of float32 and bfloat16 in a short benchmark."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Run code that ships with the model."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to compute on; auto picks the first available of cuda, mps and cpu."""


@attrs.frozen(kw_only=True)
class DataConfig:
    """The rows and how they become text."""

    train: str | tuple[str, ...]
    """Training data: a file, glob, list of files, folder or hub id (`owner/name[:config[:split]]`)."""
    eval: float | str | Mapping[str, str] | None = attrs.field(default=None, validator=[fraction, _named_sets])
    """Evaluation data: a file, several files by name (the first decides what is best), or the fraction of train to hold out."""
    format: Literal["auto", "text", "prompt-completion", "instruction", "messages", "labelled", "tokens"] = "auto"
    """Row format; auto detects it from the columns."""
    text_field: str = "text"
    """Column with the text of text and labelled rows."""
    prompt_field: str = "prompt"
    """Column with the prompt, which is excluded from the loss."""
    completion_field: str = "completion"
    """Column with the completion."""
    instruction_field: str = "instruction"
    """Column with the instruction, which is excluded from the loss."""
    input_field: str = "input"
    """Column with the input of an instruction; it may be missing or empty."""
    output_field: str = "output"
    """Column with the response to an instruction."""
    messages_field: str | None = None
    """Column with a conversation; by default messages or conversations."""
    label_field: str | tuple[str, ...] | None = None
    """Column or columns with the labels of a text."""
    weight_field: str | None = None
    """Column with the loss weight of each row; by default all rows weigh the same."""
    chat_template: str = "auto"
    """Template for conversations: auto for the tokenizer's own, plain for a minimal one, a .jinja file or a template name."""
    encoding: str = "auto"
    """Encoding of text files; auto detects UTF-8, UTF-16 and UTF-32, and warns when it has to guess."""
    delimiter: str = "auto"
    """Column delimiter of CSV files; auto detects it from the first lines."""
    header: Literal["auto"] | bool = "auto"
    """Whether the first line of a CSV file names its columns; auto detects it."""
    max_seq_length: int = attrs.field(default=512, validator=above(1))
    """Maximum number of tokens in a sequence."""
    on_bad_row: Literal["error", "drop"] = "error"
    """What to do with an unusable row: error stops the run, drop skips the row and reports it."""
    max_row_loss: float | None = attrs.field(default=None, validator=probability)
    """Largest fraction of unusable rows before the run stops; rows that a preprocessor drops do not count."""
    preprocessors: tuple[Selection, ...] = ()
    """Preprocessing steps, applied to the rows in this order."""
    streaming: bool = False
    """Prepare rows during training, again in every epoch, for data larger than the disk."""
    num_proc: Literal["auto"] | int = attrs.field(default="auto", validator=_auto_or_positive)
    """Number of processes that prepare rows; auto uses one for small data and all cores for large data."""
    cache: bool = True
    """Reuse prepared rows in later runs with the same data, code and settings."""

    @property
    def eval_files(self) -> Mapping[str, str]:
        """The held-out sets with files of their own, by config key: `data.eval`, or `data.eval.NAME` for each named one."""
        if isinstance(self.eval, Mapping):
            return {f"data.eval.{name}": spec for name, spec in self.eval.items()}
        return {"data.eval": self.eval} if isinstance(self.eval, str) else {}


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
    """Scale of the update, which is multiplied by alpha / r."""
    dropout: float = attrs.field(default=0.1, validator=probability)
    """Dropout probability for the adapter's inputs."""
    target_modules: str | tuple[str, ...] = "auto"
    """Modules to adapt: auto, attention, all-linear, a list of module names, or a regular expression for full names."""
    exclude_modules: str | tuple[str, ...] = ()
    """Modules not to adapt: a list of names, or a regular expression."""
    layers_to_transform: tuple[int, ...] = ()
    """Indices of the blocks to adapt, from 0; by default all."""
    rank_pattern: Mapping[str, int] = attrs.field(factory=dict, validator=each_above(0))
    """Ranks of modules that differ from r, by name or regular expression."""
    alpha_pattern: Mapping[str, float] = attrs.field(factory=dict, validator=each_above(0))
    """Scales of modules that differ from alpha, by name or regular expression."""
    use_rslora: bool = False
    """Multiply the update by alpha / sqrt(r) instead (rsLoRA)."""
    use_dora: bool = False
    """Learn the magnitude and the direction of weights separately (DoRA)."""
    init: str = attrs.field(default="default", validator=_init)
    """Initialisation of the adapter: default, gaussian, orthogonal or mica; none changes the model's initial outputs."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases of the base model to train: none, all, or lora_only for those of adapted modules."""
    modules_to_save: tuple[str, ...] = ()
    """Modules to train in full and save with the adapter; a new head is always included."""
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Additional arguments of peft.LoraConfig."""


@attrs.frozen(kw_only=True)
class TrainingSection:
    """The optimisation."""

    num_train_epochs: float = attrs.field(default=3.0, converter=float, validator=above(0))
    """Number of passes over the rows."""
    max_steps: int = attrs.field(default=-1, validator=_max_steps)
    """Maximum number of optimizer steps; -1 sets no limit beyond the epochs."""
    learning_rate: float = attrs.field(default=2e-4, validator=above(0))
    """Peak learning rate."""
    per_device_train_batch_size: Literal["auto"] | int = attrs.field(default=4, validator=_auto_or_positive)
    """Rows in a micro-batch; auto finds how many fit in memory and accumulates up to effective_batch_size."""
    effective_batch_size: int | None = attrs.field(default=None, validator=above(0))
    """Rows in an optimizer step over all processes; by default as many as their micro-batches have, or 16 each for auto."""
    max_tokens_per_batch: int | None = attrs.field(default=None, validator=above(0))
    """Maximum number of tokens in a micro-batch, padding included; the micro-batch contains as many rows as fit."""
    per_device_eval_batch_size: int = attrs.field(default=8, validator=above(0))
    """Rows in an evaluation batch."""
    gradient_accumulation_steps: int | None = attrs.field(default=None, validator=above(0))
    """Micro-batches of a process in an optimizer step; by default 4, or as many as effective_batch_size needs."""
    logging_steps: Literal["auto"] | int = attrs.field(default="auto", validator=_auto_or_positive)
    """Optimizer steps between log entries; auto logs the first and the last step and about 20 between."""
    eval_steps: Literal["auto"] | int = attrs.field(default="auto", validator=_auto_or_positive)
    """Optimizer steps between evaluations, besides those before and after training; auto evaluates about 10 times."""
    sample_prompts: str | tuple[str, ...] = ()
    """Prompts to answer at every evaluation: a list, or a file with one prompt per line or row."""
    metric: str = "loss"
    """Held-out metric that decides which adapter is the best: loss, or one of the task's, such as accuracy."""
    final_adapter: Literal["best", "last"] = "best"
    """Which adapter to keep at the end: with held-out rows the best one by metric, or that of the last step."""
    max_time: str | None = attrs.field(default=None, validator=_duration)
    """Time after which training ends with a checkpoint to resume from, such as 2h or 1h30m."""
    early_stopping: int | None = attrs.field(default=None, validator=above(0))
    """Evaluations in a row without improvement after which training ends; by default it does not."""
    batching: Literal["auto", "padding-free", "grouped", "padded"] = "auto"
    """How sequences of different lengths are batched; auto uses padding-free batches when the model supports them."""
    fast_kernels: bool = True
    """Use fused kernels for LoRA layers, norms and gated MLPs."""
    extra: Mapping[str, Any] = attrs.field(factory=dict)
    """Additional arguments of transformers.TrainingArguments; one without effect is refused with the reason."""

    def units_per_step(self, processes: int = 1) -> int:
        """Rows in an optimizer step over all processes; with max_tokens_per_batch, micro-batches."""
        if self.effective_batch_size is not None:
            return self.effective_batch_size
        if self.per_device_train_batch_size == "auto":
            return _ROWS_OF_AUTO * processes
        rows = self.per_device_train_batch_size if self.max_tokens_per_batch is None else 1
        return rows * (self.gradient_accumulation_steps or _ACCUMULATION) * processes


@attrs.frozen(kw_only=True)
class CheckpointConfig:
    """The checkpoints of a run."""

    writers: tuple[Selection, ...] = attrs.field(default=(Selection(name="adapter"),), validator=_unique)
    """Formats that checkpoints are written in."""
    save_steps: Literal["auto"] | int = attrs.field(default="auto", validator=_auto_or_positive)
    """Optimizer steps between checkpoints; auto saves every five minutes. The last step is always saved."""
    keep: int = attrs.field(default=2, validator=above(1))
    """Number of checkpoints to keep, besides the best one and the one the run resumed from."""
    save_failure: Literal["warn", "stop"] = "warn"
    """What to do when a checkpoint cannot be written: stop ends the run, warn does so only after two failures in a row."""


@attrs.frozen(kw_only=True)
class PluginConfig:
    """The plugins a run requires, disables or loads from files."""

    require: tuple[str, ...] = ()
    """Plugins or distributions that must load."""
    disable: tuple[str, ...] = ()
    """Plugins or distributions that must not be imported."""
    load: tuple[str, ...] = ()
    """Python files to load as plugins."""


@attrs.frozen(kw_only=True)
class DebugConfig:
    """Diagnostics."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Minimum severity of messages to show; DEBUG adds every event and the output of other libraries."""
    profile_training: bool = False
    """Profile the training, report where the time went and write profile.pstats to the run's folder."""
    save_intermediate: bool = False
    """Save the tokens and labels in the run's folder."""


@attrs.frozen(kw_only=True)
class RunConfig:
    """The complete config of a run."""

    model: ModelConfig
    task: str = "auto"
    """The task, such as causal-lm; auto infers it from the model and the labels."""
    output_dir: str = "runs/smolora"
    """Folder of the run."""
    seed: int = attrs.field(default=42, validator=_seed)
    """Seed for all randomness."""
    data: DataConfig
    lora: LoRAConfig = attrs.field(factory=LoRAConfig)
    training: TrainingSection = attrs.field(factory=TrainingSection)
    loss: Selection | None = None
    """The loss; by default the task's."""
    memory: Literal["auto", "none"] | tuple[Selection, ...] = "auto"
    """Memory strategies: auto for the device's defaults, none, or a list."""
    checkpoints: CheckpointConfig = attrs.field(factory=CheckpointConfig)
    plugins: PluginConfig = attrs.field(factory=PluginConfig)
    debug: DebugConfig = attrs.field(factory=DebugConfig)
