"""The library's face: `SmoLoRA`, `train` and `load`."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from smolora_core.components import Loss, Preprocessor
from smolora_core.config import LoRAConfig, Resolved, Setting, TrainingSection, resolve
from smolora_core.config.document import Document, read_document
from smolora_core.errors import ConfigError, TrainingError
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_core.plugins.inline import FROM_PYTHON, InlineComponents

if TYPE_CHECKING:
    from smolora_core.hookspecs import Outcome
    from smolora_core.inference.generate import LoadedAdapter
    from smolora_core.report.events import Event

    Listener = Callable[[Event], None]


@attrs.frozen(kw_only=True)
class TrainingConfig(TrainingSection):
    """The `training` section, with two settings that a config file keeps in other sections.

    Example:
        TrainingConfig(output_dir="runs/reviews", num_train_epochs=1, learning_rate=1e-3)
    """

    output_dir: str = "runs/smolora"
    """The run's folder."""
    max_seq_length: int = 512
    """The maximum number of tokens in a sequence."""

    def to_sft_config(self, **extra: Any) -> Any:
        """Make a `trl.SFTConfig` with the same settings, for plain TRL; `extra` adds to them or overrides them.

        Raises:
            ConfigError: the micro-batch size is "auto".
        """
        import torch
        from trl.trainer.sft_config import SFTConfig

        ours = {"batching", "fast_kernels", "effective_batch_size", "max_tokens_per_batch", "sample_prompts"}
        ours |= {"metric", "final_adapter", "early_stopping", "max_time"}
        ours |= {name for name in ("logging_steps", "eval_steps") if getattr(self, name) == "auto"}
        values = {name: value for name, value in attrs.asdict(self, recurse=False).items() if name not in ours}
        configured = values.pop("extra")
        if values["per_device_train_batch_size"] == "auto":
            raise ConfigError("TRL does not support training.per_device_train_batch_size auto", hint="set a number")
        rows = values["per_device_train_batch_size"]
        values["gradient_accumulation_steps"] = -(-self.units_per_step() // rows)
        # TRL turns bfloat16 on by default, and then refuses machines without it.
        cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
        defaults = {"bf16": torch.cuda.is_available(), "use_cpu": cpu, "report_to": "none"}
        return SFTConfig(max_length=values.pop("max_seq_length"), **{**defaults, **values, **configured, **extra})


class SmoLoRA:
    """A fine-tuning run as an object.

    Constructing it loads nothing; an unknown or invalid setting raises a ConfigError. `save`, `merge` and `generate` need a
    model from `train` or `load_model`, and raise a TrainingError without one.

    Args:
        model_name: the base model's folder or hub id.
        dataset_name: a file, a folder, a list of files, a hub id, a list of dicts, or a `datasets.Dataset`.
        text_field: the text column.
        output_dir: the run's folder.
        lora: the `lora` section.
        training: the `training` section.
        loss: a name, `{"name": ..., option: ...}`, a `Loss`, or an unreduced function `(logits[n, V], targets[n]) -> [n]`.
        preprocessors: steps, each a name, a dict or a record as for `loss`, or a function `(row) -> row | None | Drop | list`.
        plugins: modules or objects with hook implementations.
        listener: called with every event of the run; by default, events are printed in a notebook, else logged as `smolora`.
        settings: other sections and keys of the config, e.g. `data={"prompt_field": "question"}` or `seed=1`.

    Example:
        lora = SmoLoRA("./models/tiny", "reviews.jsonl", output_dir="runs/reviews", lora=LoRAConfig(r=16))
        metrics = lora.train(num_epochs=1)
        print(lora.generate("The film was"))
    """

    def __init__(
        self,
        model_name: str,
        dataset_name: Any,
        text_field: str | None = None,
        output_dir: str | None = None,
        *,
        lora: LoRAConfig | Mapping[str, Any] | None = None,
        training: TrainingSection | Mapping[str, Any] | None = None,
        loss: str | Callable[..., Any] | Loss | Mapping[str, Any] | None = None,
        preprocessors: Sequence[str | Callable[..., Any] | Preprocessor | Mapping[str, Any]] = (),
        plugins: Sequence[object] = (),
        listener: "Listener | None" = None,
        **settings: Any,
    ) -> None:
        paths, inline = _paths(dataset_name), InlineComponents()
        model = {"path": str(model_name), **settings.pop("model", {})}
        data = {**settings.pop("data", {}), "train": "rows in memory" if paths is None else paths}
        if isinstance(training, TrainingConfig):
            data.setdefault("max_seq_length", training.max_seq_length)
            output_dir = output_dir or training.output_dir
            training = {name: getattr(training, name) for name in attrs.fields_dict(TrainingSection)}
        if text_field is not None:
            data["text_field"] = text_field
        if preprocessors:
            data["preprocessors"] = [inline.register(each, Preprocessor) for each in preprocessors]
        sections = {"lora": lora, "training": training, "output_dir": output_dir and str(output_dir)}
        sections["loss"] = None if loss is None else inline.register(loss, Loss)
        given = {name: value for name, value in sections.items() if value is not None}
        self._given = {"model": model, "data": data, **settings, **given}
        self._rows = dataset_name if paths is None else None
        self._plugins = (*plugins, inline)
        self._listener = listener
        self._loaded: LoadedAdapter | None = None
        self.resolved = _resolve(self._given)

    def train(
        self,
        num_epochs: float | None = None,
        save_steps: int | None = None,
        eval_steps: int | None = None,
        *,
        resume: str | Path = "never",
        overrides: Collection[str] = (),
    ) -> dict[str, float]:
        """Train, and return the final metrics by name.

        Args:
            num_epochs: the number of epochs, in place of the configured one.
            save_steps: optimizer steps between two checkpoints, in place of the configured number.
            eval_steps: optimizer steps between two evaluations, in place of the configured number.
            resume: "auto" resumes from the newest checkpoint in `output_dir`; or a checkpoint folder.
            overrides: keys that may differ from the checkpoint's config.

        Raises:
            SmoLoRAError: the config cannot be used, or the run failed.
        """
        given = {
            "training.num_train_epochs": num_epochs,
            "checkpoints.save_steps": save_steps,
            "training.eval_steps": eval_steps,
        }
        settings = [Setting(tuple(key.split(".")), value, FROM_PYTHON) for key, value in given.items() if value is not None]
        self.resolved = _resolve(self._given, settings)
        outcome = _execute(self.resolved, self._plugins, self._listener, self._rows, resume=str(resume), overrides=overrides)
        # Not earlier: it imports transformers, which `_execute` does silently.
        from smolora_core.inference.generate import LoadedAdapter

        self._loaded = LoadedAdapter(outcome.model, outcome.tokenizer)
        return dict(outcome.metrics)

    def save(self, path: str | Path) -> Path:
        """Save the trained adapter and the tokenizer to the folder `path`, as plain PEFT does, and return the folder."""
        from smolora_core.lora.saving import save_adapter

        loaded = self._trained()
        save_adapter(loaded.model, Path(path), loaded.tokenizer)
        return Path(path)

    def merge(self, path: str | Path) -> Path:
        """Merge the trained adapter into the base model, save the result to the folder `path`, and return the folder."""
        from smolora_core.lora.merge import merge_and_save
        from smolora_core.report.terminal import silence_libraries

        loaded = self._trained()
        with silence_libraries():
            return merge_and_save(loaded.model, loaded.tokenizer, Path(path))

    def load_model(self, path: str | Path) -> "LoadedAdapter":
        """Load the adapter in the folder `path` instead of training one; see `load`."""
        self._loaded = load(path)
        return self._loaded

    def generate(self, prompt: str, **options: Any) -> str:
        """Continue `prompt` with the trained model; `options` are those of `smolora_core.inference.generate.generate`."""
        return self._trained().generate(prompt, **options)

    inference = generate

    def _trained(self) -> "LoadedAdapter":
        if self._loaded is None:
            raise TrainingError("the model has not been trained", hint="call train() or load_model(folder)")
        return self._loaded


def train(
    config: str | Path | Mapping[str, Any],
    *,
    plugins: Sequence[object] = (),
    listener: "Listener | None" = None,
    resume: str | Path = "never",
    overrides: Collection[str] = (),
) -> "Outcome":
    """Run a config.

    Args:
        config: a config file, or a config as nested dicts.
        plugins: modules or objects with hook implementations.
        listener: called with every event of the run; by default, events are printed in a notebook, else logged as `smolora`.
        resume: "auto", "never" or a checkpoint folder, as for `SmoLoRA.train`.
        overrides: keys that may differ from the checkpoint's config.

    Raises:
        SmoLoRAError: the config cannot be used, or the run failed.

    Example:
        outcome = train("run.yaml", resume="auto")
        print(outcome.metrics["train_loss"])
    """
    resolved = _resolve(config) if isinstance(config, Mapping) else resolve(read_document(Path(config)))
    return _execute(resolved, plugins, listener, rows=None, resume=str(resume), overrides=overrides)


def load(path: str | Path) -> "LoadedAdapter":
    """Load the trained adapter in the folder `path`, with its base model.

    Raises:
        ModelLoadError: the folder is not an adapter, or its base model is missing.

    Example:
        print(load("runs/reviews/adapter").generate("The film was"))
    """
    from smolora_core.report.terminal import silence_libraries

    with silence_libraries():
        from smolora_core.inference.generate import load_adapter

        return load_adapter(Path(path))


def _execute(resolved: Resolved, plugins: Sequence[object], listener: "Listener | None", rows: Any, **resume: Any) -> "Outcome":
    from rich.console import Console

    from smolora_core.report.events import Event, log_listener
    from smolora_core.report.terminal import Terminal, silence_libraries
    from smolora_core.run.check import check_run

    manager = PluginManager.create(attrs.evolve(PluginChoice.of(resolved.config.plugins), objects=tuple(plugins)))
    checked, level = check_run(resolved, manager, rows), resolved.config.debug.log_level
    listener = listener or (Terminal(level=level) if Console().is_jupyter else log_listener(level))
    if "torch" not in sys.modules:
        listener(Event("status", {"text": "loading libraries"}))
    with nullcontext() if level == "DEBUG" else silence_libraries():
        from smolora_core.run.execute import execute

        return execute(checked, listener, **resume)


def _resolve(values: Mapping[str, Any], settings: Sequence[Setting] = ()) -> Resolved:
    return resolve(Document(dict(values), {"": FROM_PYTHON}), settings)


def _paths(source: Any) -> str | list[str] | None:
    """Return a dataset's paths as text, or None if it is in memory."""
    if source is None:
        raise ConfigError("dataset_name is None", where=FROM_PYTHON, hint="pass a file, a folder, a list of rows or a Dataset")
    if isinstance(source, str | Path):
        return str(source)
    are_paths = isinstance(source, list | tuple) and source and all(isinstance(each, str | Path) for each in source)
    return [str(each) for each in source] if are_paths else None
