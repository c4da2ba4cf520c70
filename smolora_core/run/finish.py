"""How a run ends: plugins are told, the page is written, and what went wrong is kept with the command that goes on."""

import json
import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import attrs

from smolora_core.checkpoints.placing import replace_file
from smolora_core.checkpoints.store import Store
from smolora_core.errors import ConfigError, SmoLoRAError
from smolora_core.plugins.loading import describe_whole
from smolora_core.report.page import write_page
from smolora_core.run.context import Outcome, Run

ERROR_FILE = "last_error.json"


def close_finished(run: Run, outcome: Outcome) -> None:
    """Tell plugins of a run that reached its end, and write its page."""
    afterwards(run, None, lambda: run.plugins.tell("smolora_run_finished", run=run, outcome=outcome))
    if run.leads:
        afterwards(run, None, lambda: write_page(run.folder))


def close_failed(run: Run, error: BaseException, store: Store) -> None:
    """Tell plugins of a run that did not, write its page, keep what ended it, and note on it how to go on."""
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    outcome = Outcome(status=status, error=error)
    if not run.leads:
        afterwards(run, error, lambda: run.plugins.tell("smolora_run_finished", run=run, outcome=outcome))
        return
    text = describe_whole(error)
    committed = []
    with suppress(OSError):
        committed = store.found()
    # What was refused would be refused again, and has left the folder as it was.
    refused = isinstance(error, ConfigError) and run.resumes
    command = shlex.join([*_program(), "train", str(run.folder / "run.yaml"), "--resume", "auto"]) if committed else None
    kept = {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": status,
        "type": type(error).__name__,
        "text": text,
        "step": committed[-1].manifest.step if committed else None,
        "resume": command,
    }
    content = json.dumps(run.mask(kept), indent=1).encode()
    if not refused:
        afterwards(run, error, lambda: replace_file(run.folder / ERROR_FILE, content))
    afterwards(run, error, lambda: run.emit(status, text=text))
    afterwards(run, error, lambda: run.plugins.tell("smolora_run_finished", run=run, outcome=outcome))
    afterwards(run, error, lambda: write_page(run.folder))
    if command and not refused:
        error.add_note(f"go on with: {command}")


def _program() -> list[str]:
    """Spell the program as it was started."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return ["smolora"] if processes == "1" else ["torchrun", "--nproc_per_node", processes, "-m", "smolora_core"]


def afterwards(run: Run, error: BaseException | None, action: Callable[[], object]) -> None:
    """Clean up; what goes wrong there must not hide how the run ended."""
    try:
        action()
    except Exception as late:
        text = describe_whole(late)
        if error is not None:
            error.add_note(f"after that came {text}")
        else:
            run.warn(text)


def masked(error: SmoLoRAError, mask: Callable[[Any], Any]) -> None:
    """Take secrets out of what an error says."""
    error.problems = tuple(attrs.evolve(each, **mask(attrs.asdict(each))) for each in error.problems)
    error.args = tuple(map(mask, error.args))
