"""Check a run without torch: report every problem at once, within a second."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from smolora_core.config import DataConfig, Resolved, RunConfig
from smolora_core.data.formats import FORMATS, label_kind, peek_shape
from smolora_core.data.sources import Reading, open_source, peek
from smolora_core.errors import ConfigError, DatasetError, Problem, SmoLoRAError
from smolora_core.lora.options import resolve_targets, unknown_options
from smolora_core.lora.targets import TargetChoice
from smolora_core.model.header import ModelHeader, is_folder, read_header
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import Choices, choose_components
from smolora_core.run.folder import check_output_dir
from smolora_core.training.arguments import (
    conflicting_batch_sizes,
    missing_evaluation,
    streaming_conflicts,
)
from smolora_core.training.extra import unknown_arguments

_LENGTH = "data.max_seq_length"


@attrs.frozen(kw_only=True)
class Checked:
    """A config that passed every check; the only input of a run.

    Attributes:
        resolved: the config and the source of each value.
        plugins: the loaded plugins.
        rows: a dataset in memory, in place of `data.train`.
        folder: the run's folder.
        choices: the run's components; None if they depend on a model that is not in a local folder.
        found: summary lines by topic.
    """

    resolved: Resolved
    plugins: PluginManager
    rows: Any
    folder: Path
    choices: Choices | None
    found: dict[str, str]


def check_run(resolved: Resolved, plugins: PluginManager, rows: Any = None) -> Checked:
    """Check a config, its model folder and its first rows, and let plugins check it.

    Args:
        resolved: the config and the source of each value.
        plugins: the loaded plugins.
        rows: a dataset in memory, in place of `data.train`.

    Raises:
        SmoLoRAError: every problem that was found; a ConfigError unless all of them share another class.
    """
    config, where, errors = resolved.config, resolved.where, list[SmoLoRAError]()

    def attempt(step: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return step(*arguments, **named)
        except SmoLoRAError as error:
            errors.append(error)
            return None

    folder = attempt(check_output_dir, resolved)
    header = attempt(read_header, config.model.path, where("model.path")) if is_folder(config.model.path) else None
    architectures = header.config.get("architectures") or () if header is not None else None
    choices = attempt(choose_components, resolved, plugins.registry, architectures, partial(peek_labels, config.data, rows))
    targets = None
    if header is not None and header.modules:
        model_type, modules = header.model_type, header.modules
        targets = attempt(resolve_targets, config.lora, model_type, modules, plugins.registry, where, tied=header.tied)
    if header is not None:
        attempt(within_positions, resolved, header.positions)
    given = {"data.train": config.data.train if rows is None else rows, **config.data.eval_files}
    inspected = {key: attempt(_inspect_rows, resolved, choices, key, spec) for key, spec in given.items()}
    problems = [
        *_missing_parts(header, config.model.path, where("model.path")),
        *unknown_arguments(config.training.extra, where("training.extra")),
        *unknown_options(config.lora.extra, where("lora.extra")),
        *streaming_conflicts(config, where("data.streaming")),
        *conflicting_batch_sizes(config, where("training.per_device_train_batch_size")),
        *missing_evaluation(config, where("training.metric")),
        *plugins.collect("smolora_check_config", Problem, config=config),
    ]
    if problems:
        errors.append(ConfigError.of(problems))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kinds = {type(error) for error in errors}
        raise (kinds.pop() if len(kinds) == 1 else ConfigError).of(each for error in errors for each in error.problems)
    found = _summary(config, header, targets, choices, inspected)
    return Checked(resolved=resolved, plugins=plugins, rows=rows, folder=folder, choices=choices, found=found)


def _summary(
    config: RunConfig,
    header: ModelHeader | None,
    targets: TargetChoice | None,
    choices: Choices | None,
    inspected: Mapping[str, tuple[str, tuple[str, ...]]],
) -> dict[str, str]:
    """Describe what was found, by topic."""
    found = {"model": f"{config.model.path}" + (f"  {header.model_type}" if header else "  (hub id, not inspected)")}
    if targets is not None:
        found["targets"] = f"{' '.join(targets.shown)} in {len(targets.modules)} modules  {targets.reason}"
    if choices is not None:
        found["task"], found["loss"] = str(choices.task), str(choices.loss)
    for key, (shape, _) in inspected.items():
        found["data" if key == "data.train" else key.removeprefix("data.")] = shape
    if notes := dict.fromkeys(note for _, notes in inspected.values() for note in notes):
        found["notes"] = "; ".join(notes)
    return found


def peek_labels(config: DataConfig, rows: Any = None) -> tuple[str, str]:
    """Return the kind of labels in the first rows and the reason, as `label_kind` does, for choosing a task.

    A source that cannot be read counts as having no rows here; it is an error where its rows are checked.
    """
    found: list[dict[str, Any]] = []
    with suppress(SmoLoRAError):
        source = open_source(config.train if rows is None else rows, reading=Reading.of(config))
        if source.kind != "hub":
            found = [located.row for located in peek(source, on_bad=lambda problem: None)]
    return label_kind(config, found)


def within_positions(resolved: Resolved, positions: Any) -> Resolved:
    """Lower a default sequence length to the number of positions that the model has, if that is an integer.

    Raises:
        ConfigError: the user set a greater length.
    """
    data = resolved.config.data
    if not isinstance(positions, int) or data.max_seq_length <= positions:
        return resolved
    if _LENGTH in resolved.sources:
        raise ConfigError(
            f"{_LENGTH} {data.max_seq_length} exceeds the model's {positions} positions",
            where=resolved.where(_LENGTH),
            hint=f"set it to {positions} or less",
        )
    config = attrs.evolve(resolved.config, data=attrs.evolve(data, max_seq_length=positions))
    return attrs.evolve(resolved, config=config, sources={**resolved.sources, _LENGTH: "the model's positions"})


def _missing_parts(header: ModelHeader | None, path: str, where: str) -> Iterator[Problem]:
    if header is not None and not header.has_weights:
        yield Problem(f"the model in {path!r} has no weights", where=where, hint="add model.safetensors")
    if header is not None and not header.has_tokenizer:
        yield Problem(f"the model in {path!r} has no tokenizer", where=where, hint="save it in the same folder")


def _inspect_rows(resolved: Resolved, choices: Choices | None, key: str, spec: Any) -> tuple[str, tuple[str, ...]]:
    """Read the first rows as training will; return their shape, if preprocessors do not change it, and what was guessed."""
    config = resolved.config.data
    source = open_source(spec, resolved.where(key), Reading.of(config), held_out=key != "data.train")
    if source.kind == "hub":
        return f"{source.name}  hub id, not inspected", ()
    first = peek(source, on_bad=(lambda problem: None) if config.on_bad_row == "drop" else None)
    if config.preprocessors:
        return f"{source.name}  columns come from preprocessors", source.notes()
    extra = choices.numeric_columns(config.weight_field) if choices else tuple(filter(None, [config.weight_field]))
    # If no task could be chosen, any shape may be right.
    formats = choices.task.component.formats if choices else (*FORMATS, "labelled", "tokens")
    shape = peek_shape(config, first, extra, formats)
    if config.on_bad_row == "error":
        problems = [bad for row in first if isinstance(bad := shape.read(row.row, row.where), Problem)]
        if problems:
            raise DatasetError.of(problems)
    unread = shape.unread(first[0].row)
    ignored = f"; ignored columns: {', '.join(unread)}" if unread else ""
    return f"{source.name}  {shape.name}: {', '.join(shape.columns)}{ignored}", source.notes()
