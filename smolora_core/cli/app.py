"""The application behind `smolora`: its commands, exit statuses, and how errors are printed."""

import ast
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from cyclopts import App, CycloptsError

from smolora_core.config.document import read_document
from smolora_core.config.secrets import Mask
from smolora_core.errors import SmoLoRAError
from smolora_core.plugins.loading import describe
from smolora_core.report.stream import SafeStream

_COMMANDS_GROUP = "smolora.commands"
_SETTINGS = (
    "Every key of the config is a flag, and so is every option of the chosen components: --model ./tiny "
    "--data.train rows.jsonl --lora.r 16 --training.max_steps 100 --loss focal --loss.gamma 2. "
    "With --model and --data.train, no config file is needed."
)
_PROMPT_HINT = "a prompt that starts with '-' is given as --prompt=..., or after --"
_GROUPS = {"data": "Look at the data of a run.", "plugins": "List plugins, or look at one."}
_FAILED = 1
_USAGE = 2
_INTERRUPTED = 130


def make_app() -> App:
    """Assemble the commands, including those of plugins, without importing what they run."""
    app = App(
        name="smolora",
        help="Fine-tune small language models with LoRA on the machine you have.",
        version=lambda: importlib.metadata.version("smolora"),
        help_format="plaintext",
        result_action="return_int_as_exit_code_else_zero",
        suppress_keyboard_interrupt=False,
    )
    app.command("smolora_core.cli.train:train", name="train", help="Train an adapter from a config.", help_epilogue=_SETTINGS)
    app.command(
        "smolora_core.cli.check:check",
        name="check",
        help="Find every problem of a config in an instant.",
        help_epilogue=_SETTINGS,
    )
    checkpoints = App(name="checkpoints", help="List, verify or remove the checkpoints of a run.")
    checkpoints.command("smolora_core.cli.checkpoints:list_checkpoints", name="list", help="List the checkpoints of a run.")
    checkpoints.command(
        "smolora_core.cli.checkpoints:verify_checkpoints", name="verify", help="Find files that are missing or have changed."
    )
    checkpoints.command("smolora_core.cli.checkpoints:prune", name="prune", help="Remove old checkpoints of a run.")
    app.command(checkpoints)
    for entry in importlib.metadata.entry_points(group=_COMMANDS_GROUP):
        *groups, name = entry.name.split(".")
        _group(app, groups).command(entry.value, name=name, help=_summary(entry))
    return app


def _group(app: App, names: Sequence[str]) -> App:
    """Return the app of a command group, such as `data` for the entry point `data.preview`; create it if it is new."""
    for name in names:
        if name not in app:
            app.command(App(name=name, help=_GROUPS.get(name, "")))
        app = app[name]
    return app


def _summary(entry: importlib.metadata.EntryPoint) -> str:
    """Read the first line of a command's docstring from its source, so that help does not import plugins."""
    relative = Path(*entry.module.split(".")).with_suffix(".py")
    for folder in sys.path:
        file = Path(folder) / relative
        if file.is_file():
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
                    return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        0; 2 for invalid input; 1 for a run that failed; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    _limit_spinning()
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if debug and given[:1] == ["train"]:
        # First, so that an explicit level overrides it.
        given.insert(1, "--debug.log_level=DEBUG")
    if sys.stdout is None:
        return _run(given, debug)
    stream = SafeStream(sys.stdout)
    with redirect_stdout(cast("TextIO", stream)):
        status = _run(given, debug)
        lost = stream.finish()
    if not lost:
        return status
    print(f"error: {lost}", file=sys.stderr)
    return status or 1


def _limit_spinning() -> None:
    """Make OpenMP's idle threads sleep soon, unless the environment sets another policy; torch reads it when it is imported.

    By default idle threads spin. One other busy process then slows training down several times, because spinning threads
    take the cores that working threads need.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    if sys.platform == "linux":
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    else:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _run(given: list[str], debug: bool) -> int:
    try:
        return int(make_app()(given, exit_on_error=False, print_error=False) or 0)
    except CycloptsError as error:
        hinted = "generate" in (error.command_chain or ()) and any(argument.startswith("-") for argument in given)
        return _report([str(error).strip(), *hinted * [_PROMPT_HINT]], _USAGE, given)
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            sys.excepthook = _shown_by(_mask(given))
            raise
        notes = getattr(error, "__notes__", ())
        if isinstance(error, SmoLoRAError):
            return _report([*error.problems, *notes], error.exit_code, given)
        if isinstance(error, KeyboardInterrupt):
            return _report([str(error) or "interrupted", *notes], getattr(error, "exit_code", _INTERRUPTED), given)
        lines = [f"error: {describe(error)}", *notes, "run again with --debug for the traceback"]
        return _report(lines, _FAILED, given)


def _report(lines: Iterable[object], status: int, given: Sequence[str]) -> int:
    mask = _mask(given)
    for line in lines:
        print(mask(str(line)), file=sys.stderr)
    return status


def _shown_by(mask: Mask) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        print(mask("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")

    return show


def _mask(given: Sequence[str]) -> Mask:
    """Collect the secrets of the environment, flags and config files, so that error output contains none."""
    found: list[Any] = []
    for argument, following in pairwise([*given, ""]):
        flag, has_value, text = argument.partition("=")
        if flag.startswith("--"):
            found.append({flag.rpartition(".")[2].removeprefix("--"): text if has_value else following})
        elif argument.endswith((".yaml", ".yml", ".toml")):
            with suppress(SmoLoRAError):
                found.append(read_document(Path(argument)).values)
    return Mask.of(found)
