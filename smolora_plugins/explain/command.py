"""`smolora targets`."""

import json as json_module
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from smolora_core.cli import Json, PluginFlags, load_plugins
from smolora_core.config import LoRAConfig, convert, parse_scalar
from smolora_core.model import ModelHeader, read_header
from smolora_plugins.explain.explanation import Explanation, explain

_TIERS = {"built-in": "the built-in", "third-party": "a third party's", "user": "your"}


def targets(
    model: str,
    *,
    target_modules: Annotated[str, Parameter(name=("--target_modules", "--target-modules"))] = "auto",
    r: int = 8,
    plugins: PluginFlags | None = None,
    json: Json = False,
) -> None:
    """Explain which modules LoRA adapts in a model.

    Its weights are not loaded.

    Args:
        model: the model's folder; its config.json is enough.
        target_modules: as lora.target_modules: auto, attention, all-linear, a name, [a, list], or a regular expression.
        r: as lora.r.
        plugins: which plugins to load.
        json: print JSON.
    """
    given = {"target_modules": parse_scalar(target_modules), "r": r}
    flags = {key: f"--{key}" for key in given}
    lora = convert(given, LoRAConfig, flags)
    header = _with_shapes(read_header(model), model)
    found = explain(header, lora, load_plugins(plugins).registry, lambda key: flags.get(key.removeprefix("lora."), ""))
    if json:
        print(json_module.dumps({"model": model, "r": r, **found.as_dict()}, indent=1, ensure_ascii=False))
    else:
        _print(model, found, r)


def _with_shapes(header: ModelHeader, model: str) -> ModelHeader:
    if header.shapes:
        return header
    from smolora_core.report import silence_libraries
    from smolora_plugins.explain.shapes import shapes_of

    silence_libraries()
    return attrs.evolve(header, shapes=shapes_of(Path(model).expanduser()))


def _print(model: str, found: Explanation, r: int) -> None:
    print(f"model     {model}  {found.model_type}")
    print(f"targets   {' '.join(found.choice.shown)}  {found.choice.reason}")
    plain = found.as_dict()
    if record := plain["record"]:
        print(f"why       {_TIERS[record['tier']]} record {record['name']!r} covers {found.model_type!r}")
    for other in plain["overruled"]:
        print(f"          not {other['name']!r} ({other['from']}, {other['tier']})")
    for title, groups in (("adapted", found.adapted), ("left out", found.left_out)):
        for group, ends in groups.items():
            listed = ", ".join(f"{end} ({count})" for end, count in ends.items())
            print(f"{title:<9} {sum(ends.values())} {group}: {listed}")
    share = 100 * found.trainable / found.total
    print(f"trains    {found.trainable:,} of {found.total:,} parameters, {share:.2f} %, at r {r}")
