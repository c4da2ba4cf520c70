"""`smolora data preview`."""

import json as json_module
import sys
from contextlib import redirect_stdout
from typing import Annotated

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from smolora_core.cli import Json, PluginFlags, RunArguments, load_run, train_command

# A terminal would obey them.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def preview(
    *run: RunArguments,
    plugins: PluginFlags | None = None,
    count: Annotated[int, Parameter(help="How many sequences to show.", validator=Number(gte=1))] = 3,
    json: Json = False,
) -> None:
    """Show rows as the model sees them, with the trained tokens highlighted.

    Every key of the config is a flag, as for `smolora train`.
    """
    from smolora_core.run import check_run

    checked = check_run(*load_run(run, plugins))
    from rich.console import Console
    from rich.text import Text

    from smolora_core.report import silence_libraries
    from smolora_plugins.preview.sequences import make_preview

    silence_libraries()
    # What a preprocessor prints is not part of the answer.
    with redirect_stdout(sys.stderr):
        found = make_preview(checked, count)
    if json:
        print(json_module.dumps({**attrs.asdict(found), "ledger": found.ledger.as_dict()}, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    # Without colours, brackets mark the trained tokens.
    coloured = console.color_system and not console.no_color
    opening, closing = ("", "") if coloured else ("⟦", "⟧")
    for number, sequence in enumerate(found.sequences, start=1):
        trained = f"{sequence.supervised} of {sequence.tokens} tokens supervised"
        if sequence.learned and not sequence.supervised:
            trained = f"{sequence.tokens} tokens"
        console.print(f"sequence {number}: {trained}", style="bold", markup=False)
        text = Text()
        for piece in sequence.pieces:
            shown = piece.text.translate(_CONTROLS)
            text.append(*((f"{opening}{shown}{closing}", "green") if piece.supervised else (shown, "dim")))
        for label in sequence.learned:
            text.append("\n").append(f"{opening}{label.translate(_CONTROLS)}{closing}", "green")
        console.print(text, end="\n\n")
    console.print(f"rows     {found.shape}: {', '.join(found.columns)}", markup=False)
    for note in found.notes:
        console.print(f"note     {note}", markup=False)
    for reason, rows in found.ledger.reasons.items():
        console.print(f"dropped  {rows} of {found.ledger.read} rows read: {reason}", markup=False)
    console.print(f"next     {train_command(run, plugins)}", markup=False)
