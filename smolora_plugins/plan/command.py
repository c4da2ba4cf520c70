"""`smolora plan`."""

import json as json_module
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from smolora_core.cli import Json, PluginFlags, RunArguments, load_run, train_command

if TYPE_CHECKING:
    from smolora_plugins.plan.estimate import Plan
    from smolora_plugins.plan.remedies import Remedy

_GB = 2**30
_PARTS = {
    "program": "interpreter and libraries",
    "weights": "base weights",
    "adapter": "adapter",
    "optimizer": "gradients and optimizer",
    "activations": "activations",
    "loss": "loss chunk",
    "kept": "freed, not returned",
}


def plan(
    *run: RunArguments,
    plugins: PluginFlags | None = None,
    strategies: Annotated[
        bool, Parameter(negative="", help="Try every way to take less memory, even where the run fits.")
    ] = False,
    free: Annotated[
        float | None, Parameter(help="Gigabytes to plan for, in place of what is free here.", validator=Number(gt=0))
    ] = None,
    json: Json = False,
) -> None:
    """Show what would run and how much memory it takes, before any weight is loaded.

    Every key of the config is a flag, as for `smolora train`.
    """
    from smolora_core.run import check_run

    checked = check_run(*load_run(run, plugins))
    from smolora_core.report import silence_libraries
    from smolora_plugins.plan.estimate import make_plan

    silence_libraries()
    # What a preprocessor prints is not part of the answer.
    with redirect_stdout(sys.stderr):
        found = make_plan(checked, free=None if free is None else round(free * _GB), remedies=strategies)
    if json:
        print(json_module.dumps(_plain(found, checked.found), indent=1, ensure_ascii=False))
        return
    _print(found, checked.found)
    print(f"next     {train_command(run, plugins)}")


def _plain(found: "Plan", looked_at: dict[str, str]) -> dict[str, Any]:
    return {
        "run": looked_at,
        "device": found.device,
        "dtype": found.dtype,
        "memory": list(found.memory),
        "micro_batch": {"rows": found.rows, "accumulation": found.accumulation, "longest": found.longest},
        "looked_at": found.looked_at,
        "parts": found.found.parts(),
        "loading": found.found.loading,
        "peak": found.found.peak,
        "free": found.free,
        "fits": found.fits,
        "remedies": [
            {
                "setting": each.setting,
                "peak": each.found.peak if each.found else None,
                "slower": round(each.slower, 3),
                "lossy": each.lossy,
                "problem": each.problem,
            }
            for each in found.remedies
        ],
    }


def _print(found: "Plan", looked_at: dict[str, str]) -> None:
    for name, value in looked_at.items():
        print(f"{name:<8} {value}")
    print(f"device   {found.device} · {found.dtype}")
    print(f"memory   {' · '.join(found.memory) or 'no strategy'}")
    rows = f"{found.rows} rows of up to {found.longest} tokens, {found.accumulation} micro-batches a step"
    print(f"batch    {rows}")
    if found.looked_at is not None:
        longest = found.job.config.data.max_seq_length
        print(f"note     rows after the first {found.looked_at:,} may be longer, up to data.max_seq_length {longest}")
    print()
    for name, size in found.found.parts().items():
        if size:
            print(f"  {_PARTS[name]:<26}{_shown(size):>10}")
    print(f"  {'peak':<26}{_shown(found.found.peak):>10}{_verdict(found)}")
    print()
    if found.remedies:
        print("to take less, what costs least first")
        for each in found.remedies:
            print(f"  {_line(each, found)}")
        print()


def _verdict(found: "Plan") -> str:
    if found.free is None:
        return ""
    return f"  {'fits in' if found.fits else 'does not fit in'} {_shown(found.free)} free on {found.device}"


def _line(remedy: "Remedy", found: "Plan") -> str:
    if remedy.found is None:
        return f"{'-':>10}  {remedy.setting}  not here: {remedy.problem}"
    cost = [f"{remedy.slower:.0%} more to compute"] * (round(remedy.slower, 2) > 0) + ["changes what is learned"] * remedy.lossy
    fits = " · fits" if found.fits is False and found.free is not None and remedy.found.peak <= found.free else ""
    return f"{_shown(remedy.found.peak):>10}  {remedy.setting}{fits}{' · ' if cost else ''}{', '.join(cost)}"


def _shown(size: int) -> str:
    return f"{size / _GB:,.2f} GB" if size >= _GB else f"{size / 2**20:,.0f} MB"
