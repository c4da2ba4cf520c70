"""Everything about a config that can be known without torch: all problems at once, in an instant."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import attrs

from smolora_core.components import Task
from smolora_core.config import Resolved
from smolora_core.data.formats import FORMATS, peek_shape
from smolora_core.data.sources import open_source, peek
from smolora_core.data.sources.reading import Reading
from smolora_core.errors import ConfigError, DatasetError, Problem, SmoLoRAError
from smolora_core.lora.options import targets_of, unknown_options
from smolora_core.model.header import ModelHeader, is_folder, read_header
from smolora_core.plugins import PluginManager
from smolora_core.plugins.selection import Choices, choose_components
from smolora_core.run.folder import locate
from smolora_core.run.job import look_at_labels, within_positions
from smolora_core.training.arguments import endless, sized_twice, unknown_arguments


def preflight(resolved: Resolved, plugins: PluginManager) -> dict[str, str]:
    """Look at a config, its model folder and its first rows.

    Args:
        resolved: the config and where its values stand.
        plugins: the loaded plugins.

    Returns:
        What was found, by topic, for a person.

    Raises:
        ConfigError: with every problem there is.
    """
    problems: list[Problem] = []

    def attempt(step: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except SmoLoRAError as error:
            problems.extend(error.problems)
            return None

    config = resolved.config
    attempt(locate, resolved)
    local = is_folder(config.model.path)
    header = attempt(read_header, config.model.path, resolved.where("model.path")) if local else None
    architectures = header.config.get("architectures") or () if header is not None else None
    look = partial(look_at_labels, config.data)
    choices = attempt(choose_components, resolved, plugins.registry, architectures, look)
    targets = attempt(_targets, resolved, header, plugins) if header is not None and header.modules else None
    if header is not None:
        attempt(within_positions, resolved, header.positions)
        problems += _missing_parts(header, config.model.path, resolved.where("model.path"))
    rows = attempt(_rows, resolved, choices)
    rows_eval = attempt(_rows, resolved, choices, "eval") if isinstance(config.data.eval, str) else None
    problems += unknown_arguments(config.training.extra, resolved.where("training.extra"))
    problems += unknown_options(config.lora.extra, resolved.where("lora.extra"))
    problems += endless(config, resolved.where("data.streaming"))
    problems += sized_twice(config, resolved.where("training.per_device_train_batch_size"))
    for origin, offered in plugins.tell("smolora_check_config", config=config):
        for problem in offered if isinstance(offered, Iterable) else [offered]:
            if isinstance(problem, Problem):
                problems.append(problem if problem.where else attrs.evolve(problem, where=f"{origin.title}:"))
            else:
                what = f"smolora_check_config gave {type(problem).__name__}"
                problems.append(Problem(what, where=f"{origin.title}:", hint="it gives Problem records"))
    if problems:
        raise ConfigError.of(problems)
    found = {"model": f"{config.model.path}" + (f"  {header.model_type}" if header else "  (hub id, not looked at)")}
    if targets is not None:
        found["targets"] = f"{' '.join(targets.shown)} in {len(targets.modules)} modules  {targets.reason}"
    if choices is not None:
        found["task"], found["loss"] = str(choices.task), str(choices.loss)
    notes: list[str] = []
    for name, source, looked in (("data", config.data.train, rows), ("eval", config.data.eval, rows_eval)):
        if looked is not None:
            found[name] = f"{source}  {looked[0]}"
            notes += looked[1]
    if notes:
        found["notes"] = "; ".join(dict.fromkeys(notes))
    return found


def _missing_parts(header: ModelHeader, path: str, where: str) -> Iterator[Problem]:
    if not header.has_weights:
        yield Problem(f"the model in {path!r} has no weights", where=where, hint="it needs model.safetensors")
    if not header.has_tokenizer:
        yield Problem(f"the model in {path!r} has no tokenizer", where=where, hint="save one beside it")


def _targets(resolved: Resolved, header: ModelHeader, plugins: PluginManager) -> Any:
    lora, registry = resolved.config.lora, plugins.registry
    return targets_of(lora, header.model_type, header.modules, registry, resolved.where, tied=header.tied)


def _rows(resolved: Resolved, choices: Choices | None, key: str = "train") -> tuple[str, tuple[str, ...]]:
    """Read the first rows as they will be read; say what they are, unless preprocessors decide it, and what was guessed."""
    config = resolved.config.data
    source = open_source(getattr(config, key), resolved.where(f"data.{key}"), Reading.of(config), held_out=key == "eval")
    if source.kind == "hub":
        return "hub id, not looked at", ()
    rows = peek(source, on_bad=(lambda problem: None) if config.on_bad_row == "drop" else None)
    if config.preprocessors:
        return "columns come from preprocessors", source.notes()
    extra = choices.numbers(config.weight_field) if choices else tuple(filter(None, [config.weight_field]))
    task = choices.task.registered.component if choices else None
    # Where no task could be chosen, any shape may be the right one.
    formats = task.formats if isinstance(task, Task) else (*FORMATS, "labelled", "tokens")
    shape = peek_shape(config, rows, extra, formats)
    if config.on_bad_row == "error":
        problems = [bad for row in rows if isinstance(bad := shape.read(row.row, row.where), Problem)]
        if problems:
            raise DatasetError.of(problems)
    unread = shape.unread(rows[0].row)
    left = f"; not read: {', '.join(unread)}" if unread else ""
    return f"{shape.name}: {', '.join(shape.columns)}{left}", source.notes()
