"""`smolora check`."""

import json as json_module

from smolora_core.cli.flags import Json, PluginFlags, RunArguments, load_run, train_command
from smolora_core.errors import SmoLoRAError


def check(*run: RunArguments, plugins: PluginFlags | None = None, json: Json = False) -> int:
    """Find every problem of a config in an instant, without loading or writing anything."""
    from smolora_core.run.check import check_run

    try:
        found = check_run(*load_run(run, plugins)).found
    except SmoLoRAError as error:
        if not json:
            raise
        problems = [{"where": problem.where, "what": problem.what, "hint": problem.hint} for problem in error.problems]
        print(json_module.dumps({"ok": False, "problems": problems}, indent=1, ensure_ascii=False))
        return error.exit_code
    if json:
        print(json_module.dumps({"ok": True, "found": found}, indent=1, ensure_ascii=False))
    else:
        for name, value in found.items():
            print(f"{name:<8} {value}")
        print(f"ok       next: {train_command(run, plugins)}")
    return 0
