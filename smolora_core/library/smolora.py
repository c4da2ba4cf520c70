"""The library's face: `SmoLoRA`, `train` and `load`."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from smolora_core.components import Loss, Preprocessor
from smolora_core.config import LoRAConfig, Resolved, Setting, TrainingSection, resolve
from smolora_core.config.document import Document, read_document
from smolora_core.errors import ConfigError, TrainingError
from smolora_core.plugins import PluginChoice, PluginManager
from smolora_core.plugins.inline import FROM_PYTHON, Handed

if TYPE_CHECKING:
    from smolora_core.hookspecs import Outcome
    from smolora_core.inference.generate import LoadedAdapter
    from smolora_core.report.events import Event


@attrs.frozen(kw_only=True)
class TrainingConfig(TrainingSection):
    """The optimisation, with the two keys that a config file keeps elsewhere.

    Example:
        TrainingConfig(output_dir="runs/reviews", num_train_epochs=1, learning_rate=1e-3)
    """

    output_dir: str = "runs/smolora"
    """Folder of the run."""
    max_seq_length: int = 512
    """Tokens in a sequence at most."""

    def to_sft_config(self, **extra: Any) -> Any:
        """Make a `trl.SFTConfig` of the same settings, for those who move on to plain TRL."""
        import torch
        from trl.trainer.sft_config import SFTConfig

        values = attrs.asdict(self, recurse=False)
        # TRL has nothing like them.
        for name in ("batching", "fast_kernels", "effective_batch_size", "max_tokens_per_batch"):
            del values[name]
        if values["per_device_train_batch_size"] == "auto":
            raise ConfigError("training.per_device_train_batch_size is auto, which TRL does not know", hint="set a number")
        further = {**values.pop("extra"), **extra}
        # TRL turns bfloat16 on by itself and then refuses machines without it.
        cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
        defaults = {"bf16": torch.cuda.is_available(), "use_cpu": cpu, "report_to": "none"}
        return SFTConfig(max_length=values.pop("max_seq_length"), **{**defaults, **values, **further})


class SmoLoRA:
    """A fine-tuning in one object; constructing it loads nothing.

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
        listener: "Callable[[Event], None] | None" = None,
        **settings: Any,
    ) -> None:
        """Put a run together.

        Args:
            model_name: folder or hub id of the base model.
            dataset_name: file, folder, list of files, hub id, or a `datasets.Dataset`.
            text_field: column of the text.
            output_dir: folder of the run.
            lora: the adapter.
            training: the optimisation.
            loss: a name, a record, an unreduced function `(logits[n, V], targets[n]) -> [n]`, or `{"name": ..., option: ...}`.
            preprocessors: names, records, functions `(row) -> row | None | Drop | list`, or names with options.
            plugins: modules or objects with hook implementations.
            listener: told every event of the run.
            settings: further sections or keys of the config: `data={"prompt_field": "question"}`, `seed=1`.
        """
        model = {"path": str(model_name), **settings.pop("model", {})}
        data = dict(settings.pop("data", {}))
        given: dict[str, Any] = {"model": model, "data": data, **settings}
        self._rows = None if _is_path(dataset_name) else dataset_name
        data["train"] = _paths(dataset_name) if self._rows is None else "rows in memory"
        if text_field is not None:
            data["text_field"] = text_field
        if lora is not None:
            given["lora"] = lora
        if isinstance(training, Mapping):
            given["training"] = dict(training)
        elif training is not None:
            given["training"] = {field.name: getattr(training, field.name) for field in attrs.fields(TrainingSection)}
            if isinstance(training, TrainingConfig):
                data.setdefault("max_seq_length", training.max_seq_length)
                output_dir = output_dir or training.output_dir
        if output_dir is not None:
            given["output_dir"] = str(output_dir)
        handed = Handed()
        if loss is not None:
            given["loss"] = handed.name(loss, Loss)
        if preprocessors:
            data["preprocessors"] = [handed.name(each, Preprocessor) for each in preprocessors]
        self._objects = (*plugins, handed)
        self._given = given
        self._listener = listener
        self._outcome: Outcome | None = None
        self._loaded: LoadedAdapter | None = None
        self.resolved = _resolve(given)

    def train(
        self,
        num_epochs: float | None = None,
        save_steps: int | None = None,
        eval_steps: int | None = None,
        *,
        resume: str | Path = "never",
        overrides: Collection[str] = (),
    ) -> dict[str, float]:
        """Train and return the metrics.

        Args:
            num_epochs: passes over the rows, in place of the configured.
            save_steps: optimizer steps between two checkpoints.
            eval_steps: optimizer steps between two evaluations.
            resume: `auto` goes on from the newest checkpoint in `output_dir`; or the checkpoint to go on from.
            overrides: keys that may have another value than the checkpoint's run.

        Raises:
            SmoLoRAError: something that was given cannot be used, or the run failed.
        """
        changed = {
            ("training", "num_train_epochs"): num_epochs,
            ("checkpoints", "save_steps"): save_steps,
            ("training", "eval_steps"): eval_steps,
        }
        settings = [Setting(path, value, FROM_PYTHON) for path, value in changed.items() if value is not None]
        self.resolved = _resolve(self._given, settings)
        self._outcome = _execute(self.resolved, self._objects, self._listener, self._rows, str(resume), overrides)
        self._loaded = None
        return dict(self._outcome.metrics)

    def save(self, path: str | Path) -> Path:
        """Write the adapter to a further folder, as plain PEFT."""
        folder = Path(path)
        loaded = self._ready()
        loaded.model.save_pretrained(folder, save_embedding_layers=False)
        loaded.tokenizer.save_pretrained(folder)
        return folder

    def merge(self, path: str | Path) -> Path:
        """Write the base model with the adapter folded in."""
        from smolora_core.lora.merge import merge_and_save

        loaded = self._ready()
        return merge_and_save(loaded.model, loaded.tokenizer, Path(path))

    def load_model(self, path: str | Path) -> "LoadedAdapter":
        """Take a trained adapter from a folder, in place of training."""
        self._loaded = load(path)
        return self._loaded

    def generate(self, prompt: str, **options: Any) -> str:
        """Continue a prompt with the trained model; options as in `smolora_core.inference.generate.generate`."""
        return self._ready().generate(prompt, **options)

    inference = generate

    def _ready(self) -> "LoadedAdapter":
        if self._loaded is None and self._outcome is not None:
            from smolora_core.inference.generate import LoadedAdapter

            self._loaded = LoadedAdapter(self._outcome.model, self._outcome.tokenizer)
        if self._loaded is None:
            raise TrainingError("nothing is trained yet", hint="call train(), or load_model(folder)")
        return self._loaded


def train(
    config: str | Path | Mapping[str, Any],
    *,
    plugins: Sequence[object] = (),
    listener: "Callable[[Event], None] | None" = None,
    resume: str | Path = "never",
    overrides: Collection[str] = (),
) -> "Outcome":
    """Run a config file, or a config given as nested dicts; `resume` and `overrides` are as for `SmoLoRA.train`.

    Raises:
        SmoLoRAError: something in it cannot be used, or the run failed.
    """
    resolved = _resolve(config) if isinstance(config, Mapping) else resolve(read_document(Path(config)))
    return _execute(resolved, tuple(plugins), listener, None, str(resume), overrides)


def load(path: str | Path) -> "LoadedAdapter":
    """Load a trained adapter with its base model.

    Raises:
        ModelLoadError: the folder holds none, or its base model is gone.
    """
    from smolora_core.inference.generate import load_adapter

    return load_adapter(Path(path))


def _execute(
    resolved: Resolved,
    objects: tuple[object, ...],
    listener: "Callable[[Event], None] | None",
    rows: Any,
    resume: str,
    overrides: Collection[str],
) -> "Outcome":
    from smolora_core.report.events import logged
    from smolora_core.run.check import check
    from smolora_core.run.execute import execute

    manager = PluginManager.create(attrs.evolve(PluginChoice.of(resolved.config.plugins), objects=objects))
    listener = listener or logged(resolved.config.debug.log_level)
    return execute(check(resolved, manager, rows), listener, resume=resume, overrides=overrides)


def _resolve(values: Mapping[str, Any], settings: Sequence[Setting] = ()) -> Resolved:
    return resolve(Document(dict(values), {"": FROM_PYTHON}), settings)


def _is_path(source: Any) -> bool:
    if source is None:
        raise ConfigError("dataset_name is None", where=FROM_PYTHON, hint="give a file, a folder, a list of rows or a Dataset")
    each = source if isinstance(source, list | tuple) and source else [source]
    return all(isinstance(one, str | Path) for one in each)


def _paths(source: Any) -> Any:
    return [str(path) for path in source] if isinstance(source, list | tuple) else str(source)
