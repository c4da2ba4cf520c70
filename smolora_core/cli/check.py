"""`smolora check`."""

import json as json_module

from smolora_core.api import plugin_choice
from smolora_core.cli.options import Json, PluginFlags, RunArguments, load_plugins
from smolora_core.config import load_config, parse_flags
from smolora_core.errors import SmoLoRAError
from smolora_core.preflight import preflight

__all__ = ["check"]


def check(*run: RunArguments, plugins: PluginFlags | None = None, json: Json = False) -> int:
    """Find every problem of a config in an instant: nothing is loaded or written."""
    try:
        file, settings = parse_flags(run)
        resolved = load_config(file, settings)
        found = preflight(resolved, load_plugins(plugins, plugin_choice(resolved)))
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
        print(f"ok       next: smolora train {' '.join(run)}")
    return 0
