"""`smolora train`."""

import os
import shlex
from contextlib import ExitStack
from typing import Annotated

from cyclopts import Parameter

from smolora_core.cli.flags import PluginFlags, RunArguments, heavy_imports, load_run


def train(
    *run: RunArguments,
    plugins: PluginFlags | None = None,
    resume: Annotated[
        str, Parameter(help="Resume: auto takes the newest valid checkpoint; or a checkpoint, or the folder of its run.")
    ] = "never",
    override: Annotated[tuple[str, ...], Parameter(negative="", help="A key that may differ from the checkpoint's run.")] = (),
    profile: Annotated[bool, Parameter(negative="", help="Show where the time goes, and write profile.pstats.")] = False,
    quiet: Annotated[bool, Parameter(negative="", help="Print errors only.")] = False,
) -> None:
    """Train an adapter from a config."""
    from smolora_core.report.terminal import Terminal
    from smolora_core.run.check import check_run

    checked = check_run(*load_run((*run, *profile * ["--debug.profile_training=true"]), plugins))
    # Only the first process of torchrun prints.
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    with ExitStack() as stack:
        # The quick checks are done; from here on torch is needed.
        with heavy_imports():
            terminal = stack.enter_context(Terminal(quiet=quiet, level=checked.resolved.config.debug.log_level))
            from smolora_core.run.execute import execute

        outcome = execute(checked, terminal, resume=resume, overrides=override)
        assert outcome.adapter is not None
        if (page := outcome.adapter.with_name("report.html")).exists():
            terminal.line("report", str(page))
        terminal.line("next", f'smolora generate {shlex.quote(str(outcome.adapter))} "..."')
